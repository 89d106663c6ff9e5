//! The rules of the house that no compiler checks, read from the source as text.
//!
//! Every rule is itself tried on small samples below: one that never fires checks nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The floors, by what stands in `src/`: imports go down, or stay level, and never up.
const FLOORS: &[(u32, &[&str])] = &[
    (0, &["error", "metrics", "clock"]),
    (
        1,
        &[
            "bytes",
            "fold",
            "frame",
            "verifier",
            "block",
            "block_builder",
            "codec",
            "columns",
            "record",
            "topic_partition",
            "storage",
        ],
    ),
    (2, &["segment", "tail"]),
    (3, &["partition"]),
    (4, &["log"]),
    (5, &["producer", "consumer"]),
    (6, &["transaction"]),
    (7, &["typed", "async_"]),
];

/// What may lie at the top of the repository, beside dot-files and licences.
const TOP: &[&str] =
    &["Cargo.toml", "Cargo.lock", "src", "examples", "tests", "benches", "README.md", "CHANGELOG.md"];

const MAX_LINES: usize = 700;

/// One file: its path from the repository's top with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

/// One piece of code: a word, a `::`, or a single other character; and its line, from 1.
#[derive(Debug, Clone, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

/// Code without comments, strings and characters. Lifetimes keep their word.
fn tokens(text: &str) -> Vec<Token> {
    let c: Vec<char> = text.chars().collect();
    let at = |i: usize| c.get(i).copied().unwrap_or('\0');
    let mut out: Vec<Token> = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < c.len() {
        let start = i;
        match c[i] {
            '/' if at(i + 1) == '/' => {
                while i < c.len() && c[i] != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= c.len() {
                        break;
                    }
                }
            }
            '"' => {
                i += 1;
                while i < c.len() && c[i] != '"' {
                    i += if c[i] == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            // 'x' and '\n' are characters, 'x without a closing quote is a lifetime.
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while i < c.len() && c[i] != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            ch if ch.is_alphanumeric() || ch == '_' => {
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                let word: String = c[start..i].iter().collect();
                let hashes = (i..).take_while(|j| at(*j) == '#').count();
                if matches!(word.as_str(), "r" | "br" | "cr") && at(i + hashes) == '"' {
                    i += hashes + 1;
                    while i < c.len() && !(c[i] == '"' && (1..=hashes).all(|j| at(i + j) == '#')) {
                        i += 1;
                    }
                    i += hashes + 1;
                } else {
                    out.push(Token { text: word, line });
                }
            }
            ':' if at(i + 1) == ':' => {
                out.push(Token { text: "::".into(), line });
                i += 2;
            }
            ch => {
                if !ch.is_whitespace() {
                    out.push(Token { text: ch.into(), line });
                }
                i += 1;
            }
        }
        let end = i.min(c.len());
        line += c[start..end].iter().filter(|ch| **ch == '\n').count();
    }
    out
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// A path that the code names, from the crate's root: `["log", "catalog", "Catalog"]`.
#[derive(Debug, PartialEq)]
struct Named {
    path: Vec<String>,
    line: usize,
}

/// The module of a file: `src/log/catalog.rs` is `["log", "catalog"]`, `src/log/mod.rs` is `["log"]`.
fn module(path: &str) -> Vec<&str> {
    let inner = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let mut parts: Vec<&str> = inner.split('/').collect();
    if matches!(parts.last(), Some(&"mod") | Some(&"lib")) {
        parts.pop();
    }
    parts
}

/// Every path of the code that begins with `crate`, `super` or `self`, in imports and elsewhere.
fn named(source: &Source, code: &[Token]) -> Vec<Named> {
    let file: Vec<String> = module(&source.path).into_iter().map(str::to_owned).collect();
    let mut out = Vec::new();
    // The modules inside the file that are open here, with the depth of braces that each began at.
    let mut inner: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut i = 0;
    while i < code.len() {
        let follows = |j: usize, text: &str| code.get(i + j).is_some_and(|t| t.text == text);
        match code[i].text.as_str() {
            "mod" if follows(2, "{") => {
                inner.push((code[i + 1].text.clone(), depth));
                depth += 1;
                i += 3;
            }
            "{" => {
                depth += 1;
                i += 1;
            }
            "}" => {
                depth = depth.saturating_sub(1);
                inner.pop_if(|(_, began)| *began == depth);
                i += 1;
            }
            // A visibility, not an import.
            "in" if follows(1, "crate") && i > 0 && code[i - 1].text == "(" => i += 2,
            "crate" | "super" | "self" if follows(1, "::") && !(i > 0 && code[i - 1].text == "::") => {
                let here: Vec<String> =
                    file.iter().cloned().chain(inner.iter().map(|(m, _)| m.clone())).collect();
                i = tree(code, i, &here, Vec::new(), true, &mut out);
            }
            // An import that begins with braces: `use {crate::a, crate::b};` begins its paths inside.
            _ => i += 1,
        }
    }
    out
}

/// Reads one path or tree of an import from `i` and tells the paths; returns the place behind it.
fn tree(
    code: &[Token],
    mut i: usize,
    here: &[String],
    mut path: Vec<String>,
    first: bool,
    out: &mut Vec<Named>,
) -> usize {
    let text = |i: usize| code.get(i).map_or("", |t| t.text.as_str());
    let mut line = code[i].line;
    let mut leading = first;
    loop {
        match text(i) {
            "{" => {
                i += 1;
                while i < code.len() && text(i) != "}" {
                    i = if text(i) == "," { i + 1 } else { tree(code, i, here, path.clone(), false, out) };
                }
                return i + 1;
            }
            "crate" if leading => path = Vec::new(),
            "self" if leading => path = here.to_vec(),
            "super" if leading => {
                if path.is_empty() {
                    path = here.to_vec();
                }
                path.pop();
            }
            "self" => {}
            word if word == "*" || is_word(word) => {
                leading = false;
                path.push(word.to_owned());
            }
            // Generic arguments, or whatever else is no part of a path.
            _ => {
                out.push(Named { path, line });
                return i + 1;
            }
        }
        line = code[i].line;
        i += 1;
        if text(i) == "as" {
            i += 2;
        }
        if text(i) != "::" {
            out.push(Named { path, line });
            return i;
        }
        i += 1;
    }
}

/// The floor of what is called so; the tests of a file stand on its own.
fn floor(name: &str) -> Option<u32> {
    let name = name.strip_suffix("_tests").unwrap_or(name);
    FLOORS.iter().find(|(_, names)| names.contains(&name)).map(|(floor, _)| *floor)
}

/// Imports go down the floors, from the defining file, and never from a folder's room to its door.
fn imports(source: &Source, code: &[Token], modules: &BTreeSet<Vec<&str>>, out: &mut Vec<String>) {
    let own = module(&source.path);
    let Some(top) = own.first() else { return }; // lib.rs is the door: it imports anything
    let place = |line: usize| format!("{}:{line}", source.path);
    let Some(own_floor) = floor(top) else {
        out.push(format!("{}: `{top}` stands on no floor", place(1)));
        return;
    };
    for Named { path, line } in named(source, code) {
        let shown = path.join("::");
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        if path.starts_with(&own) {
            continue; // within the file, or from a folder's mod.rs to its rooms
        }
        let parent = &own[..own.len() - 1];
        match path.first().and_then(|first| floor(first)) {
            None => {
                out.push(format!("{}: crate::{shown} is no file's: a re-export of the root", place(line)))
            }
            Some(theirs) if theirs > own_floor => {
                out.push(format!("{}: crate::{shown} is on floor {theirs}, above {own_floor}", place(line)));
            }
            Some(_) if !parent.is_empty() && path.starts_with(parent) => {
                let sibling = path.get(..=parent.len()).is_some_and(|p| modules.contains(p));
                if !sibling {
                    out.push(format!("{}: crate::{shown} belongs to the folder's own mod.rs", place(line)));
                }
            }
            Some(_) => {}
        }
    }
}

/// Words that only one file may say.
fn reserved(source: &Source, code: &[Token], out: &mut Vec<String>) {
    for (i, token) in code.iter().enumerate() {
        let place = format!("{}:{}", source.path, token.line);
        let called = code.get(i + 1).is_some_and(|next| next.text == "!");
        match token.text.as_str() {
            "Instant" | "SystemTime" | "UNIX_EPOCH" if source.path != "src/clock.rs" => {
                out.push(format!("{place}: `{}`: only src/clock.rs reads the system's clock", token.text));
            }
            "unsafe" if source.path != "src/storage/chunk.rs" => {
                out.push(format!("{place}: `unsafe` belongs to src/storage/chunk.rs"));
            }
            "allow" | "expect" if source.path != "src/storage/chunk.rs" => {
                let lint = code.get(i + 2).is_some_and(|lint| lint.text == "unsafe_code");
                out.extend(lint.then(|| format!("{place}: `unsafe` belongs to src/storage/chunk.rs")));
            }
            "todo" | "unimplemented" if called => out.push(format!("{place}: `{}!`", token.text)),
            _ => {}
        }
    }
}

/// What a file looks like, comments and all.
fn looks(source: &Source, out: &mut Vec<String>) {
    let lines = source.text.lines().count();
    if lines > MAX_LINES {
        out.push(format!("{}:{lines}: longer than {MAX_LINES} lines", source.path));
    }
    if !source.text.starts_with("//!") {
        out.push(format!("{}:1: does not begin with a //! that says what it is", source.path));
    }
    for (i, line) in source.text.lines().enumerate() {
        let marks = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        for mark in marks.filter(|word| matches!(*word, "TODO" | "FIXME")) {
            out.push(format!("{}:{}: {mark}", source.path, i + 1));
        }
    }
}

/// Every offence against the rules on `src/`, as `file:line: what`.
fn offences(sources: &[Source]) -> Vec<String> {
    let modules: BTreeSet<Vec<&str>> = sources.iter().map(|s| module(&s.path)).collect();
    let mut out = Vec::new();
    for source in sources {
        let code = tokens(&source.text);
        imports(source, &code, &modules, &mut out);
        reserved(source, &code, &mut out);
        looks(source, &mut out);
    }
    out
}

/// Names at the top of the repository that have no business there.
fn strangers<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let known = |name: &str| TOP.contains(&name) || name.starts_with('.') || name.starts_with("LICENSE");
    names.into_iter().filter(|name| !known(name)).collect()
}

fn read(top: &Path, folder: &str, out: &mut Vec<Source>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(top.join(folder))? {
        let entry = entry?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read(top, &path, out)?;
        } else if path.ends_with(".rs") {
            out.push(Source { text: std::fs::read_to_string(entry.path())?, path });
        }
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(())
}

/// The top of the repository as git sees it; without git, as it lies there.
fn top_names(top: &Path) -> std::io::Result<BTreeSet<String>> {
    let git = Command::new("git").arg("-C").arg(top).args(["ls-files"]).output();
    if let Ok(listed) = git
        && listed.status.success()
        && !listed.stdout.is_empty()
    {
        let files = String::from_utf8_lossy(&listed.stdout);
        return Ok(files.lines().filter_map(|path| path.split('/').next()).map(str::to_owned).collect());
    }
    let names = std::fs::read_dir(top)?.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()));
    names.filter(|name| !matches!(name, Ok(name) if name == "target")).collect()
}

#[test]
fn the_house_is_tidy() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    read(top, "src", &mut sources).unwrap();
    assert!(sources.iter().any(|s| s.path == "src/lib.rs"));
    let mut found = offences(&sources);
    let names = top_names(top).unwrap();
    found.extend(strangers(names.iter().map(String::as_str)).iter().map(|n| format!("{n}:1: at the top")));
    assert!(found.is_empty(), "{} offences:\n{}", found.len(), found.join("\n"));
}

/// Files of `src/` that a page names in backticks and that are not there.
fn unknown_files<'a>(page: &'a str, sources: &[Source]) -> Vec<&'a str> {
    let named =
        page.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs") && !word.contains(' '));
    let is_there = |name: &str| {
        let short = name.strip_prefix("src/").unwrap_or(name);
        name.starts_with("tests/") || sources.iter().any(|s| s.path.strip_prefix("src/") == Some(short))
    };
    named.filter(|name| !is_there(name)).collect()
}

/// Fields that a page draws (a place, a name, a type, a meaning) and that no file draws above its code.
fn drawn_nowhere(page: &str, sources: &[Source]) -> Vec<String> {
    let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let drawn: BTreeSet<String> = sources
        .iter()
        .flat_map(|s| s.text.lines())
        .filter_map(|l| l.strip_prefix("//!"))
        .map(plain)
        .collect();
    let fields = page.split("```").skip(1).step_by(2).flat_map(str::lines).map(plain);
    let field = |line: &String| {
        let mut words = line.split(' ');
        words.next().is_some_and(|at| at.parse::<u32>().is_ok()) && words.nth(1).is_some()
    };
    fields.filter(field).filter(|line| !drawn.contains(line)).collect()
}

#[test]
fn the_pages_say_what_the_code_says() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    read(top, "src", &mut sources).unwrap();
    for page in ["README.md", "src/docs/journey.md", "src/docs/format.md", "src/docs/decisions.md"] {
        let text = std::fs::read_to_string(top.join(page)).unwrap();
        assert_eq!(unknown_files(&text, &sources), Vec::<&str>::new(), "{page}");
        assert_eq!(drawn_nowhere(&text, &sources), Vec::<String>::new(), "{page}");
    }
    let page = "`tail.rs` and `lost/tail.rs`\n```text\n  0  magic  u32\n  4  count  u32  how many\n```\n";
    let tail = Source { path: "src/tail.rs".into(), text: "//!  0   magic   u32\n".into() };
    assert_eq!(unknown_files(page, std::slice::from_ref(&tail)), ["lost/tail.rs"]);
    assert_eq!(drawn_nowhere(page, &[tail]), ["4 count u32 how many"]);
}

/// What a file with this code offends against, in a house that has the files of `OTHERS`.
fn sample(path: &str, code: &str) -> Vec<String> {
    const OTHERS: &[&str] = &["src/lib.rs", "src/log/mod.rs", "src/log/root.rs", "src/log/catalog.rs"];
    let others = OTHERS.iter().filter(|other| **other != path);
    let mut sources: Vec<Source> =
        others.map(|other| Source { path: (*other).into(), text: "//! One.\n".into() }).collect();
    sources.push(Source { path: path.into(), text: format!("//! A sample.\n{code}\n") });
    offences(&sources)
}

#[track_caller]
fn clean(path: &str, code: &str) {
    assert_eq!(sample(path, code), Vec::<String>::new(), "{code}");
}

#[track_caller]
fn offends(path: &str, code: &str, place_and_words: &[&str]) {
    let found = sample(path, code);
    assert_eq!(found.len(), 1, "{code}: {found:?}");
    for words in place_and_words {
        assert!(found[0].contains(words), "{code}: {found:?} does not say {words:?}");
    }
}

#[test]
fn imports_that_go_up_are_found() {
    clean("src/tail.rs", "use crate::frame::Frame;\nuse crate::segment::chain::Chain;");
    offends("src/tail.rs", "use crate::log::Log;", &["src/tail.rs:2", "floor 4"]);
    offends(
        "src/tail.rs",
        "use std::fmt;\nuse crate::{\n error::Error,\n log::{root::Root},\n};",
        &[":5", "log::root"],
    );
    offends("src/tail.rs", "use {std::fmt, crate::producer::Producer};", &["floor 5"]);
    offends("src/tail.rs", "fn f() { let x = crate::log::Log::open(); }", &[":2", "floor 4"]);
    offends("src/tail.rs", "use super::log::root::Root as R;", &["floor 4"]);
    offends("src/segment/mod.rs", "pub(crate) use super::partition::X;", &["floor 3"]);
    offends("src/storage/file.rs", "#[cfg(test)]\nmod tests {\n use crate::log::root::Root;\n}", &[":4"]);
    offends("src/helpers.rs", "", &["no floor"]);
    offends("src/frame_tests.rs", "use crate::log::Log;", &["floor 4"]);
    clean(
        "src/tail.rs",
        "// use crate::log::Log;\n/* crate::log /* crate::log */ */ const S: &str = \"crate::log::Log\";",
    );
    clean(
        "src/lib.rs",
        "pub mod partitioner { pub use crate::producer::partitioner::*; }\npub use error::Error;",
    );
    clean("src/producer/mod.rs", "impl crate::log::Log {}\npub(in crate::producer) fn f() {}");
}

#[test]
fn imports_from_the_root_are_found() {
    offends("src/tail.rs", "use crate::Error;", &["crate::Error", "re-export"]);
    offends("src/tail.rs", "use crate::{Error};", &["re-export"]);
    offends("src/tail.rs", "use super::Error;", &["re-export"]);
    offends("src/tail.rs", "use crate::*;", &["re-export"]);
    offends("src/consumer/mod.rs", "use crate::partitioner::Sticky;", &["re-export"]);
}

#[test]
fn imports_from_a_room_to_its_own_door_are_found() {
    clean("src/log/root.rs", "use super::catalog::Catalog;\nuse crate::log::catalog::Entry;");
    clean("src/log/root.rs", "struct A; mod tests { use super::*; mod deep { use super::super::A; } }");
    clean("src/log/root.rs", "mod a { fn f() {} } mod b { use super::a::f; }");
    clean("src/log/mod.rs", "mod root; use self::root::Root; use crate::log::catalog::Catalog;");
    offends("src/log/root.rs", "use super::Log;", &["mod.rs"]);
    offends("src/log/root.rs", "use super::*;", &["mod.rs"]);
    offends("src/log/root.rs", "use super::{Log, catalog::Catalog};", &["log::Log", "mod.rs"]);
    offends("src/log/root.rs", "use crate::log::{catalog::Catalog, Log};", &["log::Log", "mod.rs"]);
    offends("src/log/root.rs", "use crate::log::Topic;", &["mod.rs"]);
    offends("src/log/root.rs", "mod tests { use super::super::Log; }", &["mod.rs"]);
    offends("src/log/root.rs", "mod tests { fn f() {} } use super::Log;", &["mod.rs"]);
    offends("src/log/root.rs", "fn f() -> super::Log {}", &["mod.rs"]);
}

#[test]
fn clocks_and_unsafe_outside_their_file_are_found() {
    clean("src/clock.rs", "fn f() { let t = std::time::Instant::now(); }");
    offends("src/tail.rs", "fn f() { let t = std::time::Instant::now(); }", &[":2", "Instant"]);
    offends("src/tail.rs", "fn f() { SystemTime::now(); }", &["SystemTime"]);
    offends("src/tail.rs", "fn f() { UNIX_EPOCH.elapsed(); }", &["UNIX_EPOCH"]);
    clean("src/storage/chunk.rs", "#![allow(unsafe_code)]\nfn f() { unsafe {} }");
    offends("src/tail.rs", "#![allow(unsafe_code)]", &["src/tail.rs:2", "unsafe"]);
    offends("src/storage/file.rs", "const C: char = '\"';\nfn f() { unsafe {} }", &[":3", "unsafe"]);
    clean(
        "src/tail.rs",
        "#![deny(unsafe_code)] // unsafe\nconst A: &str = r#\"\"unsafe\"#; const B: &str = \"\\\"unsafe\";",
    );
    offends("src/tail.rs", "fn f<'a>(x: &'a str) { g('\\'', b\"x\"); unsafe {} }", &["unsafe"]);
}

#[test]
fn what_is_unfinished_too_long_or_without_a_word_is_found() {
    for mark in ["TODO", "FIXME"] {
        offends("src/tail.rs", &format!("// {mark}: later"), &[":2", mark]);
    }
    clean("src/tail.rs", "const NOT_TODO_AT_ALL: u8 = 0; fn todo() {}");
    offends("src/tail.rs", "fn f() { todo!() }", &["todo!"]);
    offends("src/tail.rs", "fn f() { unimplemented!(\"x\") }", &["unimplemented!"]);
    clean("src/tail.rs", &"\n".repeat(MAX_LINES - 2));
    offends("src/tail.rs", &"\n".repeat(MAX_LINES), &["longer"]);
    let bare = Source { path: "src/tail.rs".into(), text: "use std::fmt;\n".into() };
    assert!(offences(&[bare]).iter().any(|o| o.contains("src/tail.rs:1: does not begin")));
}

#[test]
fn strangers_at_the_top_are_found() {
    assert_eq!(
        strangers(["src", "Cargo.lock", ".gitignore", "LICENSE-MIT", "README.md"]),
        Vec::<&str>::new()
    );
    assert_eq!(
        strangers(["src", "notes.txt", "scripts", "rustfmt.toml"]),
        ["notes.txt", "scripts", "rustfmt.toml"]
    );
}
