//! What is said twice is said alike: the table of what to use stands in the README and on the crate's page.
#![cfg(not(any(async_mutex_lite_loom, miri, target_family = "wasm")))]

/// The rows of the table that begins with "to …", without its links.
fn rows<'a>(page: &'a str, prefix: &'a str) -> Vec<String> {
    let lines = page.lines().map(|line| line.strip_prefix(prefix).unwrap_or(line));
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
    let readme = rows(include_str!("../../README.md"), "");
    let page = rows(include_str!("../../src/lib.rs"), "//! ");
    assert!(readme.len() > 10, "{readme:?}");
    assert_eq!(readme, page);
}
