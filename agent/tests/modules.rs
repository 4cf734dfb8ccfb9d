//! The imports between modules: the order of the folders of the agent, and no circles in any crate.
//!
//! Paths are read from the source, tests left out. Nothing is compiled or run.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The layers of `agent/src`, lowest first. A module imports from lower layers and from its own, but
/// not in a circle.
const LAYERS: [&[&str]; 8] = [
    &["clock", "starvation", "metrics", "config", "cli"],
    &["engine", "events", "seen", "state"],
    &["hand_offs", "messages", "snapshot", "status"],
    &["shared"],
    &["instances", "proxies", "token_files", "topology"],
    &["decider"],
    &["api"],
    &["run", "commands"],
];

/// Imports from a higher layer that are still tolerated. Delete what is gone.
const LAYER_LEFTOVERS: &[(&str, &str)] = &[];

type Module = Vec<String>;

#[test]
fn folders_of_the_agent_import_only_from_lower_layers() {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    for (from, to) in imports("agent/src") {
        let (from, to) = (from[0].as_str(), to[0].as_str());
        if from == "main" {
            continue;
        }
        let (above, below) = (layer(from), layer(to));
        assert!(above.is_some() && below.is_some(), "`{from}` or `{to}` is new: give it a layer");
        let tolerated = LAYER_LEFTOVERS.contains(&(from, to));
        assert!(below <= above || tolerated, "`{from}` imports from `{to}`, which is in a higher layer");
    }
}

#[test]
fn modules_do_not_import_one_another_in_a_circle() {
    for sources in crates() {
        // Each import counts between the two siblings that contain its ends, in the module that
        // contains both. A module and what is inside it may import one another.
        let mut siblings: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (from, to) in imports(&sources) {
            let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
            if shared < from.len() && shared < to.len() {
                siblings.entry(from[..=shared].to_vec()).or_default().insert(to[..=shared].to_vec());
            }
        }
        for start in siblings.keys() {
            let circle: BTreeSet<String> = reachable(&siblings, start)
                .into_iter()
                .filter(|other| reachable(&siblings, other).contains(start))
                .map(|module| format!("{sources}: {}", module.join("::")))
                .collect();
            assert!(circle.is_empty(), "these modules import one another in a circle: {circle:?}");
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The sources of every crate, from the root of the workspace.
fn crates() -> Vec<String> {
    fn find(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name();
            let path = folder.join(&name);
            if name == "Cargo.toml" && root().join(folder).join("src").is_dir() {
                found.push(folder.join("src").to_str().unwrap().to_owned());
            } else if name != "target" && name != ".git" && root().join(&path).is_dir() {
                find(&path, found);
            }
        }
    }
    let mut found = Vec::new();
    find(Path::new(""), &mut found);
    assert!(found.len() >= 7, "{found:?}");
    found
}

/// What can be reached by one import or more.
fn reachable(graph: &BTreeMap<Module, BTreeSet<Module>>, start: &Module) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    let mut open = vec![start];
    while let Some(module) = open.pop() {
        for next in graph.get(module).into_iter().flatten() {
            if found.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    found
}

/// The imports between the modules of a crate, each as the two modules.
fn imports(sources: &str) -> BTreeSet<(Module, Module)> {
    let root = root().join(sources);
    let mut files = Vec::new();
    list(&root, &mut files);
    let modules: BTreeMap<Module, PathBuf> =
        files.into_iter().map(|file| (module(file.strip_prefix(&root).unwrap()), file)).collect();
    assert!(modules.len() > 3, "{sources} has modules");
    let mut imports = BTreeSet::new();
    for (from, file) in &modules {
        let text = fs::read_to_string(file).unwrap();
        // Tests may import from everywhere.
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let code: String = text.lines().map(|line| line.split("//").next().unwrap().trim()).collect();
        for path in paths(&code, from) {
            // The longest part of a path that is a module: the rest is an item in it.
            let to = (1..=path.len()).rev().map(|length| path[..length].to_vec());
            if let Some(to) = to.into_iter().find(|part| modules.contains_key(part)).filter(|to| to != from) {
                imports.insert((from.clone(), to));
            }
        }
    }
    imports
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
}

/// The module of a file; empty for `lib.rs`.
fn module(file: &Path) -> Module {
    let mut names: Module =
        file.with_extension("").iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    if names.last().is_some_and(|name| name == "mod" || name == "lib") {
        names.pop();
    }
    names
}

/// All paths in the code that begin with `crate` or `super`, as paths from the root of the crate.
fn paths(code: &str, from: &Module) -> Vec<Module> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        let before = code[..start].chars().next_back();
        // In the middle of a word or of `super::super`.
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
            continue;
        }
        let mut rest = &code[start..];
        let mut base = from.clone();
        while let Some(after) = rest.strip_prefix("super::") {
            base.pop();
            rest = after;
        }
        if let Some(after) = rest.strip_prefix("crate::") {
            base.clear();
            rest = after;
        }
        tree(rest, &base, &mut found);
    }
    found
}

/// Reads one path, or a tree of them in braces, and returns what follows.
fn tree<'a>(mut code: &'a str, base: &Module, found: &mut Vec<Module>) -> &'a str {
    let mut path = base.clone();
    loop {
        if let Some(group) = code.strip_prefix('{') {
            code = group;
            while !code.is_empty() {
                code = tree(code.trim_start(), &path, found).trim_start();
                match code.strip_prefix(',') {
                    Some(next) => code = next.trim_start(),
                    None => return code.strip_prefix('}').unwrap_or(code),
                }
                if let Some(end) = code.strip_prefix('}') {
                    return end;
                }
            }
            return code;
        }
        let end = code.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len());
        let (name, rest) = code.split_at(end);
        while path.last().is_some_and(|last| last == "super") {
            path.pop();
            path.pop();
        }
        path.push(name.to_owned());
        let Some(next) = rest.strip_prefix("::") else {
            found.push(path);
            // `name as other` and `*` end here as well.
            let end = rest.find([',', '}', ';']).unwrap_or(rest.len());
            return &rest[end..];
        };
        code = next;
    }
}
