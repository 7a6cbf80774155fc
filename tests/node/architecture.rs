//! No module of a package depends on one that depends on it: neither the top-level modules, nor the files of a folder.
//!
//! Read are the `use` lines and the paths that begin with `crate`, `self`, `super` or the package's own name. A re-export
//! counts as the file that it leads to. A folder's own `mod.rs` and its files are one module, so a file may use what its
//! folder defines. Code for tests alone may use everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

/// A module as its path below the crate: `["dimse", "pdu"]`; the crate itself is `[]`.
type Module = Vec<String>;

/// Uses that are still part of a circle and are to go: package and folder, the module that uses, the one that is used.
/// A line goes with its circle.
const KNOWN: &[(&str, &str, &str)] = &[("triaged_imaging::phantom", "anatomy", "lesion")];

/// A file's module and its text without comments, literals and code for tests.
struct File {
    module: Module,
    text: Vec<char>,
    /// As [`inline_modules`] finds them.
    inline: Vec<(usize, usize, String)>,
}

/// One mention of a module by another, for the message.
struct Mention {
    module: Module,
    line: usize,
    path: String,
}

/// A package's modules and what their names lead to.
struct Package {
    name: String,
    files: Vec<File>,
    modules: BTreeSet<Module>,
    /// The names that a module imports or re-exports: name to the path that it stands for.
    names: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
    /// Modules of which a module imports everything.
    globs: BTreeMap<Module, Vec<Module>>,
    /// The items that a module defines.
    items: BTreeSet<(Module, String)>,
}

impl Package {
    /// From file names below `src` and their texts.
    fn new(name: &str, sources: &[(String, String)]) -> Self {
        let mut skipped: BTreeSet<Module> = BTreeSet::new();
        let mut files = Vec::new();
        for (path, text) in sources {
            let mut module: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
                module.pop();
            }
            let (text, test_files) = without_tests(&without_literals(text));
            skipped.extend(test_files.into_iter().map(|child| [module.clone(), vec![child]].concat()));
            let inline = inline_modules(&text);
            files.push(File { module, text, inline });
        }
        files.retain(|file| !skipped.iter().any(|skipped| file.module.starts_with(skipped)));
        let modules = files.iter().map(|file| file.module.clone()).collect();
        let mut package = Self {
            name: name.to_owned(),
            files,
            modules,
            names: BTreeMap::new(),
            globs: BTreeMap::new(),
            items: BTreeSet::new(),
        };
        package.note_names();
        package
    }

    fn note_names(&mut self) {
        for file in &self.files {
            for item in defined(&file.text) {
                self.items.insert((file.module.clone(), item));
            }
            for (_, module, statement) in uses(file) {
                // Names of an inline module are its own.
                if module != file.module {
                    continue;
                }
                for (path, name) in flattened(&statement) {
                    let Some(path) = self.absolute(&path, &module) else { continue };
                    if name == "*" {
                        self.globs.entry(module.clone()).or_default().push(path);
                    } else {
                        self.names.entry(module.clone()).or_default().insert(name, path);
                    }
                }
            }
        }
    }

    /// A path below the crate, or none where it leads out of it.
    fn absolute(&self, path: &[String], module: &[String]) -> Option<Vec<String>> {
        let mut at: Module = match path.first()?.as_str() {
            "crate" | "$crate" => Vec::new(),
            name if name == self.name => Vec::new(),
            "self" | "super" => module.to_vec(),
            child if self.modules.contains(&[module, &[child.to_owned()]].concat()) => {
                return Some([module, path].concat());
            }
            imported => {
                let target = self.names.get(module)?.get(imported)?;
                return Some([target, &path[1..]].concat());
            }
        };
        let mut rest = path;
        while let Some((first, more)) = rest.split_first() {
            match first.as_str() {
                "super" => {
                    at.pop();
                }
                "self" | "crate" | "$crate" => {}
                name if name == self.name && rest.len() == path.len() => {}
                _ => break,
            }
            rest = more;
        }
        Some([at.as_slice(), rest].concat())
    }

    /// The module in which a path below the crate ends, re-exports followed.
    fn module_of(&self, path: &[String]) -> Module {
        let mut path = path.to_vec();
        // A chain of re-exports is short; one that runs in a ring does not compile.
        for _ in 0..16 {
            let known = (0..=path.len()).rev().find(|&len| self.modules.contains(&path[..len])).unwrap_or(0);
            let (module, rest) = path.split_at(known);
            let Some(name) = rest.first() else { return module.to_vec() };
            let target = self.names.get(module).and_then(|names| names.get(name)).cloned();
            let target = target.or_else(|| {
                let globs = self.globs.get(module)?;
                let from = globs.iter().find(|from| self.items.contains(&(from.to_vec(), name.clone())))?;
                Some([from.as_slice(), std::slice::from_ref(name)].concat())
            });
            match target {
                Some(target) if target != path => path = [target.as_slice(), &rest[1..]].concat(),
                _ => return module.to_vec(),
            }
        }
        path
    }

    /// For each folder its modules, and of each those that it mentions.
    fn mentions(&self) -> BTreeMap<Module, BTreeMap<String, BTreeMap<String, Mention>>> {
        let mut all: BTreeMap<Module, BTreeMap<String, BTreeMap<String, Mention>>> = BTreeMap::new();
        for file in &self.files {
            let mut paths: Vec<(usize, Module, Vec<String>)> = Vec::new();
            for (at, module, statement) in uses(file) {
                paths.extend(flattened(&statement).into_iter().map(|(path, _)| (at, module.clone(), path)));
            }
            paths.extend(inline_paths(file));
            for (at, from, path) in paths {
                let Some(target) = self.absolute(&path, &from) else { continue };
                let target = self.module_of(&target);
                let shared = file.module.iter().zip(&target).take_while(|(a, b)| a == b).count();
                let (Some(from), Some(to)) = (file.module.get(shared), target.get(shared)) else { continue };
                let line = 1 + file.text[..at].iter().filter(|letter| **letter == '\n').count();
                let mention = Mention { module: file.module.clone(), line, path: path.join("::") };
                let graph = all.entry(target[..shared].to_vec()).or_default();
                graph.entry(from.clone()).or_default().entry(to.clone()).or_insert(mention);
            }
        }
        all
    }

    /// The circles but for those by `known` uses, each with its uses, as a text.
    fn circles(&self, known: &[(&str, &str, &str)]) -> Vec<String> {
        let mut circles = Vec::new();
        for (folder, mut graph) in self.mentions() {
            let place = [vec![self.name.clone()], folder].concat().join("::");
            for (_, from, to) in known.iter().filter(|(of, ..)| *of == place) {
                graph.get_mut(*from).and_then(|uses| uses.remove(*to));
            }
            let mut seen: BTreeSet<String> = BTreeSet::new();
            for start in graph.keys() {
                let Some(circle) = shortest(&graph, start) else { continue };
                if circle.iter().any(|module| seen.contains(module)) {
                    continue;
                }
                seen.extend(circle.iter().cloned());
                let mut text = format!("{place}: {} -> {}\n", circle.join(" -> "), circle[0]);
                for (from, to) in circle.iter().zip(circle.iter().cycle().skip(1)) {
                    let Mention { module, line, path } = &graph[from][to];
                    text += &format!("    {from} uses {to}: {} line {line}: {path}\n", module.join("::"));
                }
                circles.push(text);
            }
        }
        circles
    }
}

/// The shortest way from a module back to itself.
fn shortest(graph: &BTreeMap<String, BTreeMap<String, Mention>>, start: &str) -> Option<Vec<String>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(module) = waiting.pop_front() {
        for next in graph.get(module).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                let mut way = vec![module];
                while *way.last().expect("begins with a module") != start {
                    way.push(before[way.last().expect("begins with a module")]);
                }
                return Some(way.into_iter().rev().map(str::to_owned).collect());
            }
            if !before.contains_key(next.as_str()) {
                before.insert(next, module);
                waiting.push_back(next);
            }
        }
    }
    None
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The text with comments and what stands in quotes replaced by spaces; line breaks stay.
fn without_literals(text: &str) -> Vec<char> {
    let letters: Vec<char> = text.chars().collect();
    let mut kept = letters.clone();
    let mut at = 0;
    let starts = |at: usize, what: &str| letters[at..].iter().copied().take(what.len()).eq(what.chars());
    while at < letters.len() {
        let end = if starts(at, "//") {
            at + letters[at..].iter().take_while(|letter| **letter != '\n').count()
        } else if starts(at, "/*") {
            let mut depth = 0;
            let mut end = at;
            loop {
                if end >= letters.len() {
                    break end;
                } else if starts(end, "/*") {
                    (depth, end) = (depth + 1, end + 2);
                } else if starts(end, "*/") {
                    (depth, end) = (depth - 1, end + 2);
                    if depth == 0 {
                        break end;
                    }
                } else {
                    end += 1;
                }
            }
        } else if letters[at] == 'r' && (at == 0 || !is_word(letters[at - 1]) || letters[at - 1] == 'b') {
            let marks = letters[at + 1..].iter().take_while(|letter| **letter == '#').count();
            if letters.get(at + 1 + marks) != Some(&'"') {
                at += 1;
                continue;
            }
            let close = format!("\"{}", "#".repeat(marks));
            let inside = at + marks + 2;
            (inside..letters.len()).find(|&end| starts(end, &close)).map_or(letters.len(), |end| end + close.len())
        } else if letters[at] == '"' {
            let mut end = at + 1;
            while end < letters.len() && letters[end] != '"' {
                end += if letters[end] == '\\' { 2 } else { 1 };
            }
            end + 1
        } else if letters[at] == '\'' && letters.get(at + 1) == Some(&'\\') {
            at + 3 + letters[at + 3..].iter().take_while(|letter| **letter != '\'').count() + 1
        } else if letters[at] == '\'' && letters.get(at + 2) == Some(&'\'') {
            at + 3
        } else {
            at += 1;
            continue;
        };
        let end = end.min(letters.len());
        kept[at..end].iter_mut().filter(|letter| **letter != '\n').for_each(|letter| *letter = ' ');
        at = end;
    }
    kept
}

/// The text without what is compiled for tests alone, and the names of the files that are.
fn without_tests(text: &[char]) -> (Vec<char>, Vec<String>) {
    let mut kept = text.to_vec();
    let mut files = Vec::new();
    let mark: Vec<char> = "#[cfg(test)]".chars().collect();
    let mut at = 0;
    while let Some(found) = text[at..].windows(mark.len()).position(|window| window == mark) {
        let begin = at + found;
        let mut end = begin + mark.len();
        let mut depth = 0;
        while let Some(letter) = text.get(end) {
            end += 1;
            match letter {
                '{' => depth += 1,
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ';' if depth == 0 => break,
                _ => {}
            }
        }
        let item: String = text[begin + mark.len()..end].iter().collect();
        if let Some(name) = item.trim().strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            files.push(name.trim().to_owned());
        }
        kept[begin..end].iter_mut().filter(|letter| **letter != '\n').for_each(|letter| *letter = ' ');
        at = end;
    }
    (kept, files)
}

/// The words of a text with their places.
fn words(text: &[char]) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let len = text[at..].iter().take_while(|letter| is_word(**letter)).count();
        if len > 0 {
            words.push((at, text[at..at + len].iter().collect()));
        }
        at += len.max(1);
    }
    words
}

/// The items of a file by their names.
fn defined(text: &[char]) -> Vec<String> {
    const KINDS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union"];
    words(text).windows(2).filter(|pair| KINDS.contains(&pair[0].1.as_str())).map(|pair| pair[1].1.clone()).collect()
}

/// The inline modules of a text: first place, last place, name.
fn inline_modules(text: &[char]) -> Vec<(usize, usize, String)> {
    let mut found: Vec<(usize, usize, String)> = Vec::new();
    let mut open: Vec<Option<usize>> = Vec::new();
    let (mut after_mod, mut named) = (false, None);
    let mut words = words(text).into_iter().peekable();
    for (at, letter) in text.iter().enumerate() {
        if let Some((_, word)) = words.next_if(|(begin, _)| *begin == at) {
            named = after_mod.then(|| word.clone());
            after_mod = word == "mod";
        }
        match letter {
            '{' => {
                let module = named.take().map(|name| {
                    found.push((at, text.len(), name));
                    found.len() - 1
                });
                open.push(module);
            }
            '}' => {
                if let Some(Some(module)) = open.pop() {
                    found[module].1 = at;
                }
            }
            _ => {}
        }
    }
    found
}

/// The module that a place of a file lies in: the file's, or an inline one of it.
fn module_at(file: &File, place: usize) -> Module {
    let around = file.inline.iter().filter(|(begin, end, _)| (*begin..*end).contains(&place));
    file.module.iter().chain(around.map(|(.., name)| name)).cloned().collect()
}

/// The `use` statements of a file: place, module, and what stands between `use` and the semicolon.
fn uses(file: &File) -> Vec<(usize, Module, String)> {
    let mut found = Vec::new();
    for (at, word) in words(&file.text) {
        // Not the bounds of `impl Trait + use<'a>`.
        if word == "use" && file.text.get(at + 3).is_some_and(|letter| letter.is_whitespace()) {
            let statement: String = file.text[at + 3..].iter().take_while(|letter| **letter != ';').collect();
            found.push((at, module_at(file, at), statement));
        }
    }
    found
}

/// The paths of a `use` statement, each with the name that it gets.
fn flattened(statement: &str) -> Vec<(Vec<String>, String)> {
    let statement = statement.trim();
    if let Some(open) = statement.find('{') {
        let (before, inside) = (&statement[..open], &statement[open + 1..]);
        let inside = inside.rfind('}').map_or(inside, |close| &inside[..close]);
        let before: Vec<String> = segments(before);
        let mut paths = Vec::new();
        let (mut depth, mut begin) = (0, 0);
        for (at, letter) in inside.char_indices().chain([(inside.len(), ',')]) {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    for (path, name) in flattened(&inside[begin..at]) {
                        // `a::{self}` is `a`.
                        let itself = path.len() == 1 && path[0] == "self";
                        let name =
                            if itself && name == "self" { before.last().cloned().unwrap_or_default() } else { name };
                        let path = if itself { before.clone() } else { [before.clone(), path].concat() };
                        paths.push((path, name));
                    }
                    begin = at + 1;
                }
                _ => {}
            }
        }
        return paths;
    }
    let (path, alias) = match statement.split_once(" as ") {
        Some((path, alias)) => (path, Some(alias.trim().to_owned())),
        None => (statement, None),
    };
    if path.trim().ends_with('*') {
        return vec![(segments(path.trim().trim_end_matches('*')), "*".into())];
    }
    let path = segments(path);
    let name = alias.or_else(|| path.last().cloned()).unwrap_or_default();
    if path.is_empty() { Vec::new() } else { vec![(path, name)] }
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(str::trim).filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

/// The paths outside `use` statements that begin at the crate, at the module or above it.
fn inline_paths(file: &File) -> Vec<(usize, Module, Vec<String>)> {
    let in_use: Vec<(usize, usize)> =
        uses(file).iter().map(|(at, _, statement)| (*at, at + 3 + statement.chars().count())).collect();
    let text = &file.text;
    let mut found = Vec::new();
    for (at, word) in words(text) {
        let begins = matches!(word.as_str(), "crate" | "super" | "self") && !(at >= 2 && text[at - 1] == ':');
        // `pub(in crate::a)` says who may use, not what is used.
        let restricts = text[..at].ends_with(&['(', 'i', 'n', ' ']);
        if !begins || restricts || in_use.iter().any(|(begin, end)| (*begin..*end).contains(&at)) {
            continue;
        }
        let mut path = vec![word.clone()];
        let mut end = at + word.chars().count();
        while text[end..].starts_with(&[':', ':']) {
            let segment: String = text[end + 2..].iter().take_while(|letter| is_word(**letter)).collect();
            if segment.is_empty() {
                break;
            }
            end += 2 + segment.chars().count();
            path.push(segment);
        }
        if path.len() > 1 {
            found.push((at, module_at(file, at), path));
        }
    }
    found
}

/// All sources below a folder, by their names within it.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(here) = waiting.pop() {
        for entry in fs::read_dir(&here).unwrap_or_else(|error| panic!("{}: {error}", here.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Every package of the workspace: its name as in paths, and its sources' folder.
fn packages() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.to_owned(), root.join("training")];
    folders.extend(fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path()));
    let mut packages = Vec::new();
    for folder in folders {
        let manifest: toml::Table = fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
        packages.push((manifest["package"]["name"].as_str().unwrap().replace('-', "_"), folder.join("src")));
    }
    packages
}

#[test]
fn no_module_depends_on_one_that_depends_on_it() {
    let mut circles = Vec::new();
    for (name, folder) in packages() {
        circles.extend(Package::new(&name, &sources(&folder)).circles(KNOWN));
    }
    assert!(
        circles.is_empty(),
        "modules that depend on each other; move what they share to where both may take it from:\n{}",
        circles.join("")
    );
}

/// Made-up files as a package.
fn made_up(files: &[(&str, &str)]) -> Package {
    let sources: Vec<(String, String)> =
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Package::new("made_up", &sources)
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    for (a, b) in [
        ("use crate::b::B;", "use crate::a::A;"),
        ("use crate::{c, b::{self, D}};", "use super::a as other;"),
        ("fn f() -> super::b::B { todo!() }", "impl From<crate::a::A> for B {}"),
        ("use made_up::b::*;", "use std::fs;\nuse crate::\n    a::A;"),
        ("mod inner { use super::super::b::B; }", "fn f() { crate::a::inner::f() }"),
        ("const QUOTE: char = '\"'; use crate::b::B;", "const RAW: &str = r#\"\"\"#; use crate::a::A;"),
    ] {
        let found = made_up(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)]).circles(&[]);
        assert_eq!(found.len(), 1, "{a} {b}");
        assert!(found[0].starts_with("made_up: a -> b -> a\n    a uses b: a"), "{found:?}");
    }
    // Longer ones, among the files of a folder, and through what the folder hands on.
    let three = [
        ("x/mod.rs", "pub mod a; mod b; mod c; pub use c::{C, D as E}; use b::B;"),
        ("x/a.rs", "use super::B;"),
        ("x/b.rs", "use crate::x::E;"),
        ("x/c.rs", "use super::a::A;"),
    ];
    let found = made_up(&three).circles(&[]);
    assert!(found[0].starts_with("made_up::x: a -> b -> c -> a\n    a uses b: x::a line 1: super::B\n"), "{found:?}");
    assert!(made_up(&three[..3]).circles(&[]).is_empty());
}

#[test]
fn what_is_no_use_is_no_circle() {
    for text in [
        "// use crate::a::A;",
        "/* use crate::a::A; /* nested */ use crate::a::A; */",
        "const TEXT: &str = \"\\\" use crate::a::A;\";",
        "const TEXT: &str = r#\"use crate::a::A; \" use crate::a::A;\"#;",
        "pub(in crate::a) fn f<'a>() -> char { '\\'' }",
        "#[cfg(test)]\nmod tests { use crate::a::A; fn f() {} }",
        "use std::a::A; use a::A;",
        "mod inner { use super::B; }",
    ] {
        let found = made_up(&[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B;"), ("b.rs", text)]).circles(&[]);
        assert!(found.is_empty(), "{text}: {found:?}");
    }
    let tests =
        [("a.rs", "use crate::b::B;"), ("b/mod.rs", "#[cfg(test)]\nmod tests;"), ("b/tests.rs", "use crate::a::A;")];
    assert!(made_up(&tests).circles(&[]).is_empty(), "a file for tests alone");
    let folder = [("x/mod.rs", "mod a; use a::A; pub struct B;"), ("x/a.rs", "use super::B;")];
    assert!(made_up(&folder).circles(&[]).is_empty(), "a folder and its own file");
}

#[test]
fn a_known_use_is_passed_over_and_no_other() {
    let package = made_up(&[("a.rs", "use crate::b::B;"), ("b.rs", "use crate::a::A;")]);
    assert!(package.circles(&[("made_up", "b", "a")]).is_empty());
    assert_eq!(package.circles(&[("made_up::x", "b", "a"), ("made_up", "b", "c")]).len(), 1);
}
