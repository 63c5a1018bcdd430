//! What is said twice is said alike, in the README and on the crate's page; and the README stays short, and its links lead
//! somewhere.
#![cfg(not(any(async_mutex_lite_loom, miri, target_family = "wasm")))]

use std::path::Path;

const README: &str = include_str!("../../README.md");

/// The lines of the crate's page.
fn page() -> impl Iterator<Item = &'static str> {
    include_str!("../../src/lib.rs").lines().map_while(|line| line.strip_prefix("//!")).map(str::trim_start)
}

/// The first paragraph.
fn pitch<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines
        .skip_while(|line| line.is_empty() || line.starts_with('#'))
        .take_while(|line| !line.is_empty())
        .fold(String::new(), |pitch, line| pitch + line + " ")
}

/// The rows of the table that begins with "to …", without its links.
fn rows<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    lines.skip_while(|line| *line != "| to … | use |").take_while(|line| line.starts_with('|')).map(plain).collect()
}

/// Replaces each ``[`code`](target)`` by `` `code` ``.
fn plain(row: &str) -> String {
    let mut parts = row.split("[`");
    let mut plain = parts.next().expect("there is a first part").to_owned();
    for part in parts {
        let (code, rest) = part.split_once("`](").expect("a link to code");
        let (_, rest) = rest.split_once(')').expect("its target");
        plain += &format!("`{code}`{rest}");
    }
    plain
}

#[test]
fn the_readme_and_the_crates_page_have_the_same_table() {
    let readme = rows(README.lines());
    assert!(readme.len() > 10, "{readme:?}");
    assert_eq!(readme, rows(page()));
}

#[test]
fn the_readme_and_the_crates_page_begin_with_the_same_sentence() {
    let (readme, page) = (pitch(README.lines()), pitch(page()));
    assert!(page.len() > 100 && readme.starts_with(&page), "{readme}\n{page}");
}

#[test]
fn the_readme_has_at_most_150_lines() {
    assert!(README.lines().count() <= 150);
}

/// Of the package, which has not all files of the repository, this tests nothing.
#[test]
fn the_links_of_the_readme_lead_to_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let targets: Vec<_> = README.split("](").skip(1).filter_map(|rest| rest.split_once(')')).collect();
    let files: Vec<_> = targets.iter().map(|(target, _)| target).filter(|target| !target.starts_with("http")).collect();
    assert!(files.len() > 5, "{files:?}");
    if root.join("CONTRIBUTING.md").exists() {
        for file in files {
            assert!(root.join(file).exists(), "{file}");
        }
    }
}
