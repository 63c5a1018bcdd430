//! `api JSON…` prints the public API of the crate from what rustdoc wrote about it: all of the first, and what
//! is other in each of the next. `.ci/api` calls it.

use std::collections::BTreeSet;
use std::error::Error;

use public_api::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let mut first = None;
    for file in std::env::args().skip(1) {
        let api = read(&file)?;
        match &first {
            None => {
                api.iter().for_each(|item| println!("{item}"));
                first = Some(api);
            }
            Some(first) => {
                let name = file.rsplit('/').next().unwrap_or(&file).trim_end_matches(".json");
                println!("\n# {name}");
                first.difference(&api).for_each(|item| println!("- {item}"));
                api.difference(first).for_each(|item| println!("+ {item}"));
            }
        }
    }
    Ok(())
}

/// One line for each item, auto traits included; not for what every type has.
fn read(file: &str) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let api = Builder::from_rustdoc_json(file).omit_blanket_impls(true).build()?;
    // Nobody can name these, and compilers differ in them.
    let nameless =
        |item: &String| ["core::marker::Freeze", "core::marker::UnsafeUnpin"].iter().any(|t| item.contains(t));
    Ok(api.items().map(|item| item.to_string()).filter(|item| !nameless(item)).collect())
}
