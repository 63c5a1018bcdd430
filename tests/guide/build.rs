//! Finds the pages, so that none can be forgotten: the README, the guide, and what the comments in `src` say.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// An empty line for each that is no documentation: so the others keep their numbers.
fn documentation(code: &str) -> String {
    let mut page = String::new();
    for line in code.lines().map(str::trim_start) {
        let text = line.strip_prefix("///").or(line.strip_prefix("//!")).unwrap_or_default();
        page += text.strip_prefix(' ').unwrap_or(text);
        page.push('\n');
    }
    page
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut pages = vec![root.join("README.md")];
    files(&root.join("src"), &mut pages);
    pages.sort();
    let mut modules = String::new();
    for page in &pages {
        println!("cargo::rerun-if-changed={}", page.display());
        let name = page.strip_prefix(&root).expect("below it").display().to_string().replace(['/', '\\', '.'], "_");
        let text = fs::read_to_string(page).expect("text");
        let text = if name.ends_with("_rs") { documentation(&text) } else { text };
        fs::write(out.join(&name), text).expect("a file");
        // All on the first line, so that a line of a page has its own number.
        modules += &format!("#[doc = include_str!(\"{name}\")] pub mod {} {{}} ", name.to_lowercase());
    }
    println!("cargo::rerun-if-changed={}", root.join("src").display());
    fs::write(out.join("pages.rs"), modules).expect("a file");
}
