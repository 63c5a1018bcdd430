//! Builds the programs, weighs them, and prints where the bytes come from.
//!
//! `table TARGET` compares with `recorded.txt`, and fails if a program has grown by more than 5 % or a promise
//! is broken; `table TARGET --record` writes that file. `.ci/sizes` calls it for each target.
//!
//! Sizes are those of one compiler, and of a standard library that came built or is built here: with another,
//! the table is only shown, and the promises are looked at.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use flate2::{Compression, write::GzEncoder};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const PROGRAMS: [(&str, &str); 12] = [
    ("empty", "the empty program"),
    ("allocator", "an allocator alone"),
    ("floor", "hashbrown alone"),
    ("try_lock_u32", "try_lock, u32"),
    ("try_lock_string", "try_lock, String"),
    ("lock_u32", "lock, u32"),
    ("lock_u32_cheap", "lock, u32, a cheap hasher"),
    ("lock_string", "lock, String"),
    ("lock_string_cheap", "lock, String, a cheap hasher"),
    ("lock_two_types", "lock, u32 and (u16, u64)"),
    ("everything_u32", "everything, u32"),
    ("everything_string", "everything, String"),
];

/// What rustc takes for granted in WASM.
const FEATURES: [&str; 6] = [
    "--enable-bulk-memory",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];

/// Whose code a symbol is. The first that is found in its name: generic code counts for its author.
const OWNERS: [(&str, &str); 6] = [
    ("core::fmt", "formatting"),
    ("hashbrown", "hashbrown"),
    ("foldhash", "hasher"),
    ("async_mutex_lite::hash", "hasher"),
    ("async_mutex_lite", "ours"),
    ("Hash", "hasher"),
];
const OTHERS: &str = "the rest";

struct Program {
    name: &'static str,
    raw: usize,
    gzip: usize,
    /// Bytes of each symbol's code.
    symbols: Vec<(String, usize)>,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let good = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [target] => weigh(target, false),
        [target, "--record"] => weigh(target, true),
        _ => Err("table TARGET [--record]".into()),
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn weigh(target: &str, record: bool) -> Result<bool> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no parent")?;
    let file = here.join("recorded.txt");
    let mut recorded = read(&fs::read_to_string(&file).unwrap_or_default());
    let compiler = compiler()?;
    let programs = build(here, target)?;
    println!("## {target}, Rust {compiler}\n");
    print(&programs);
    let mut good = true;
    let known = recorded.keys().any(|(with, of, _)| *with == compiler && of == target);
    if !known && !record {
        println!("nothing is recorded for this compiler: not compared\n");
    }
    for &Program { name, raw, gzip, .. } in &programs {
        match recorded.insert((compiler.clone(), target.into(), name.into()), (raw, gzip)) {
            _ if record || !known => {}
            None => {
                println!("NOT RECORDED: {name}");
                good = false;
            }
            Some((old_raw, old_gzip)) if raw * 100 > old_raw * 105 || gzip * 100 > old_gzip * 105 => {
                println!("GROWN: {name} had {old_raw} bytes, {old_gzip} with gzip");
                good = false;
            }
            Some(_) => {}
        }
    }
    good &= bars(target, &programs);
    if record {
        let mut text = String::from("# compiler target program raw gzip: written by `.ci/sizes --record`\n");
        for ((compiler, target, name), (raw, gzip)) in &recorded {
            writeln!(text, "{compiler} {target} {name} {raw} {gzip}")?;
        }
        fs::write(&file, text)?;
    }
    Ok(good || record)
}

/// Compiler, target and program: bytes as they are, and with gzip.
type Recorded = BTreeMap<(String, String, String), (usize, usize)>;

fn read(recorded: &str) -> Recorded {
    let line = |line: &str| {
        let [compiler, target, name, raw, gzip] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        Some(((compiler.into(), target.into(), name.into()), (raw.parse().ok()?, gzip.parse().ok()?)))
    };
    recorded.lines().filter_map(line).collect()
}

/// The version of the compiler; `+std` if the standard library is built with it.
fn compiler() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = String::from_utf8(Command::new(rustc).arg("-vV").output()?.stdout)?;
    let release = said.lines().find_map(|line| line.strip_prefix("release: ")).ok_or("rustc has no release")?;
    let std = if env::var("BUILD_STD").is_ok_and(|flags| !flags.is_empty()) { "+std" } else { "" };
    Ok(format!("{release}{std}"))
}

fn build(here: &Path, target: &str) -> Result<Vec<Program>> {
    let wasm = target.starts_with("wasm");
    let out = PathBuf::from(env::var_os("CARGO_TARGET_DIR").ok_or("CARGO_TARGET_DIR is not set")?);
    let mut cargo = Command::new("cargo");
    cargo.current_dir(here).args(["build", "--quiet", "--locked", "--release", "-p", "programs", "--target", target]);
    cargo.args(env::var("BUILD_STD").unwrap_or_default().split_whitespace());
    run(&mut cargo)?;
    let mut programs = Vec::new();
    for (name, _) in PROGRAMS {
        let mut program = out.join(target).join("release").join(name);
        if wasm {
            program.set_extension("wasm");
            let smaller = program.with_extension("opt.wasm");
            run(Command::new("wasm-opt").args(FEATURES).args(["-Oz", "-g"]).arg(&program).arg("-o").arg(&smaller))?;
            program = smaller;
        }
        let bytes = fs::read(&program)?;
        let object = object::File::parse(&*bytes)?;
        let symbols = symbols(&object);
        let image = if wasm {
            let bare = program.with_extension("bare.wasm");
            let strip = ["--strip-debug", "--strip-producers", "--strip-target-features"];
            run(Command::new("wasm-opt")
                .args(["-Oz", "--all-features"])
                .args(strip)
                .arg(&program)
                .arg("-o")
                .arg(&bare))?;
            fs::read(bare)?
        } else {
            flash(&object)?
        };
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&image)?;
        programs.push(Program { name, raw: image.len(), gzip: gzip.finish()?.len(), symbols });
    }
    Ok(programs)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// What a programmer would write to the flash.
fn flash(object: &object::File<'_>) -> Result<Vec<u8>> {
    let mut image = Vec::new();
    for section in object.sections() {
        if matches!(section.kind(), SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::Data) {
            image.extend_from_slice(section.data()?);
        }
    }
    Ok(image)
}

fn symbols(object: &object::File<'_>) -> Vec<(String, usize)> {
    let code = object.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0);
    let mut symbols: Vec<_> = code
        .map(|symbol| {
            let name = symbol.name().unwrap_or("?");
            (format!("{:#}", rustc_demangle::demangle(name)), symbol.size() as usize)
        })
        .collect();
    symbols.sort_by(|(a, more), (b, less)| less.cmp(more).then(a.cmp(b)));
    symbols
}

fn owner(symbol: &str) -> &'static str {
    OWNERS.iter().find(|(mark, _)| symbol.contains(mark)).map_or(OTHERS, |(_, owner)| owner)
}

fn print(programs: &[Program]) {
    let owners = ["ours", "hashbrown", "hasher", "formatting", OTHERS];
    println!("| what is linked | raw | gzip | {} |", owners.join(" | "));
    println!("| --- | ---: | ---: |{}", " ---: |".repeat(owners.len()));
    for (program, (_, description)) in programs.iter().zip(PROGRAMS) {
        let shares = owners.map(|of| {
            let sizes = program.symbols.iter().filter(|(name, _)| owner(name) == of).map(|(_, size)| size);
            sizes.sum::<usize>().to_string()
        });
        println!("| {description} | {} | {} | {} |", program.raw, program.gzip, shares.join(" | "));
    }
    println!();
    if let Ok(symbols) = env::var("SYMBOLS") {
        for program in programs.iter().filter(|program| program.name == symbols) {
            for (name, size) in &program.symbols {
                println!("{size:6} {:14} {name}", owner(name));
            }
        }
        println!();
    }
}

/// The promises on size, in bytes over the allocator's own.
fn bars(target: &str, programs: &[Program]) -> bool {
    let find = |name| programs.iter().find(|program| program.name == name).expect("it is built");
    let [allocator, lock, two] = ["allocator", "lock_u32", "lock_two_types"].map(find);
    // A goal that has never been reached must not hide growth: it is reported, and fails nothing.
    let goal = |what: &str, is: usize, most: usize| {
        println!("{}: {what}: {is}, at most {most}", if is <= most { "reached" } else { "goal not reached" });
    };
    // Flash holds bytes as they are; a page's are sent compressed.
    let (unit, most, weight): (_, _, fn(&Program) -> usize) = match target.starts_with("wasm") {
        true => ("gzip", 2_500, |program| program.gzip),
        false => ("flash", 4_400, |program| program.raw),
    };
    let first = weight(lock) - weight(allocator);
    goal(&format!("lock and unlock by u32, {unit}"), first, most);
    goal(&format!("a second key type, {unit}, per cent of the first"), (weight(two) - weight(lock)) * 100 / first, 40);
    let formatting = lock.symbols.iter().filter(|(name, _)| owner(name) == "formatting").count();
    println!("functions of the formatting machinery: {formatting}, must be 0\n");
    formatting == 0
}
