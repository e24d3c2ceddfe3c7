//! Finds cycles between the modules of a crate.
//!
//! At each level of the module tree a module stands together with its children, and must not use a sibling
//! that uses it, directly or by way of others. What a child takes from its own parent is no edge. Code under
//! `cfg(test)` or the feature `testing` does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// `["store", "orders"]` for `crate::store::orders`.
type Module = Vec<String>;

/// The modules of one crate, and who uses whom.
pub(crate) struct Crate {
    files: BTreeMap<Module, (PathBuf, Vec<Used>)>,
    /// Where a module gets what it re-exports: `balancer` has `Pool` from `balancer::pool`.
    exports: BTreeMap<Module, BTreeMap<String, Module>>,
}

/// A use of `to` by `from`, both children of the same module, and the place where it stands.
type Edges = BTreeMap<Module, BTreeMap<Module, String>>;

impl Crate {
    /// The crate whose root is `root`, such as `shared/src/lib.rs`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut krate = Self { files: BTreeMap::new(), exports: BTreeMap::new() };
        krate.add(Module::new(), root, root.parent().unwrap_or(root));
        let exports = krate.files.iter().map(|(module, (_, uses))| {
            let names = uses.iter().filter_map(|used| {
                let from = krate.resolve(module, &used.path)?;
                let is_below = from.len() > module.len() && from.starts_with(module);
                is_below.then_some((used.path.last()?.clone(), from))
            });
            (module.clone(), names.collect())
        });
        krate.exports = exports.collect();
        krate
    }

    fn add(&mut self, module: Module, file: &Path, folder: &Path) {
        let code = code(file);
        for child in children(&code) {
            let mut path = module.clone();
            path.push(child.clone());
            let file = folder.join(format!("{child}.rs"));
            if file.is_file() {
                self.add(path, &file, &folder.join(child));
            }
        }
        self.files.insert(module, (file.to_owned(), uses(&code)));
    }

    /// The deepest module on a path that stands in `module`.
    fn resolve(&self, module: &Module, path: &[String]) -> Option<Module> {
        let mut rest = path.iter();
        let mut at = match rest.next()?.as_str() {
            "crate" => Module::new(),
            "self" => module.clone(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            child => [module.clone(), vec![child.to_owned()]].concat(),
        };
        if !self.files.contains_key(&at) {
            return None;
        }
        for name in rest {
            let below = [at.clone(), vec![name.clone()]].concat();
            if name == "super" {
                at.pop()?;
            } else if self.files.contains_key(&below) {
                at = below;
            } else {
                return Some(self.exports.get(&at).and_then(|names| names.get(name)).cloned().unwrap_or(at));
            }
        }
        Some(at)
    }

    fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (from, (file, uses)) in &self.files {
            for used in uses {
                let Some(to) = self.resolve(from, &used.path) else { continue };
                let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
                if from.len() > common && to.len() > common {
                    let place = format!("{}:{}", file.display(), used.line);
                    let users = edges.entry(from[..=common].to_vec()).or_default();
                    users.entry(to[..=common].to_vec()).or_insert(place);
                }
            }
        }
        edges
    }

    /// A shortest cycle through each module that is in one, each written as
    /// `a uses b (file:line), b uses a (file:line)`.
    pub(crate) fn cycles(&self) -> BTreeSet<String> {
        let edges = self.edges();
        let mut seen = BTreeSet::new();
        let mut cycles = BTreeSet::new();
        for start in edges.keys() {
            let Some(cycle) = shortest_way_back(&edges, start) else { continue };
            if cycle.iter().any(|module| !seen.contains(module)) {
                seen.extend(cycle.iter().cloned());
                let next = cycle.iter().cycle().skip(1);
                let steps = cycle.iter().zip(next).map(|(from, to)| {
                    format!("{} uses {} ({})", from.join("::"), to.join("::"), edges[from][to])
                });
                cycles.insert(steps.collect::<Vec<_>>().join(", "));
            }
        }
        cycles
    }
}

fn shortest_way_back(edges: &Edges, start: &Module) -> Option<Vec<Module>> {
    let mut ways = vec![vec![start.clone()]];
    let mut reached = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in edges.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
                if next == start {
                    return Some(way);
                }
                if reached.insert(next.clone()) {
                    longer.push([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

/// The code of a file: without strings, comments and tests, with its line breaks.
pub(crate) fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let is_test = line.trim_start().starts_with("#[cfg(") && {
            let condition = line.split(']').next().unwrap_or_default();
            !condition.contains("not(") && (condition.contains("(test") || condition.contains("\"testing\""))
        };
        if is_test {
            // An item in braces ends at the same indentation, any other at its semicolon.
            let indentation = &line[..line.len() - line.trim_start().len()];
            let end = format!("{indentation}}}");
            code.push('\n');
            let mut in_braces = false;
            for line in lines.by_ref() {
                code.push('\n');
                in_braces |= line.ends_with('{');
                if line == end || !in_braces && (line.ends_with(';') || line.contains("; //")) {
                    break;
                }
            }
            continue;
        }
        code.push_str(&without_strings(line));
        code.push('\n');
    }
    code
}

fn without_strings(line: &str) -> String {
    let mut code = String::new();
    let (mut in_string, mut escaped) = (false, false);
    for (at, letter) in line.char_indices() {
        match letter {
            '/' if !in_string && line[at..].starts_with("//") => break,
            '"' if !escaped && !code.ends_with('\'') => in_string = !in_string,
            _ if !in_string => code.push(letter),
            _ => {}
        }
        escaped = letter == '\\' && !escaped;
    }
    code
}

/// The modules that a file declares by `mod name;`, or lists in `routes!`.
fn children(code: &str) -> Vec<String> {
    let words: Vec<&str> = code.split(|letter: char| !is_word(letter) && letter != ';').collect();
    let declared = words.windows(2).filter(|pair| pair[0] == "mod").map(|pair| pair[1]);
    let declared = declared.filter_map(|name| name.strip_suffix(';')).map(str::to_owned);
    let listed = code.split_once("routes! {").and_then(|(_, rest)| rest.split('}').next());
    let listed = listed.into_iter().flat_map(|list| list.split(|letter: char| !is_word(letter)));
    declared.chain(listed.filter(|name| !name.is_empty()).map(str::to_owned)).collect()
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

struct Used {
    path: Vec<String>,
    line: usize,
}

/// Each path that begins with `crate`, `super` or `self`, and each of a `use`, with its groups written out.
fn uses(code: &str) -> Vec<Used> {
    let mut used = Vec::new();
    let starts = ["crate::", "super::", "self::", "use "];
    let found = starts.iter().flat_map(|start| code.match_indices(start));
    for (at, start) in found {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|letter| is_word(letter) || letter == ':') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let tree = &code[if start == "use " { at + start.len() } else { at }..];
        let mut paths = Vec::new();
        expand(&mut tree.chars().peekable(), &[], &mut paths);
        used.extend(paths.into_iter().map(|path| Used { path, line }));
    }
    used
}

/// Reads one tree of paths, such as `crate::{a, b::{c, d as e}}`.
fn expand(
    letters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    before: &[String],
    paths: &mut Vec<Vec<String>>,
) {
    let mut path = before.to_vec();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        if letters.next_if_eq(&'{').is_some() {
            loop {
                expand(letters, &path, paths);
                // A name given by `as` is passed over.
                while letters.next_if(|letter| !matches!(letter, ',' | '}')).is_some() {}
                match letters.next() {
                    Some(',') => {}
                    _ => return,
                }
            }
        }
        let mut name = String::new();
        while let Some(letter) = letters.next_if(|letter| is_word(*letter)) {
            name.push(letter);
        }
        let is_path_itself = name == "self" && !path.is_empty();
        if !name.is_empty() && !is_path_itself {
            path.push(name);
        }
        let mut ahead = letters.clone();
        if ahead.next() != Some(':') || ahead.next() != Some(':') {
            break;
        }
        *letters = ahead;
    }
    paths.push(path);
}
