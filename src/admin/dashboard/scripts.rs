//! The scripts of the dashboard as browsers get them: without their comments, and joined into few
//! files.
//!
//! On a phone each file costs a round trip, and HTTP/1.1 has six connections for them. So `app.js`
//! brings every module that it or more than one page needs, and the file of a page brings those
//! that this page alone needs. Joining puts each module into a function of its own, in the order
//! of their imports. The folder stays one of plain modules, and nobody builds anything.
//!
//! **Invariant:** a module runs once. It stands in one file, its home, and every import of it asks
//! for its home.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The module that the document names. It runs last in its file.
pub(super) const APP: &str = "app.js";

type Path = &'static str;

pub(super) struct Scripts {
    sources: BTreeMap<Path, &'static str>,
    /// The file that brings each module.
    homes: HashMap<Path, Path>,
    /// Every module, behind those that it imports.
    ordered: Vec<Path>,
}

/// The names that a module gives to others.
struct Exports<'a> {
    names: Vec<&'a str>,
    default: Option<&'a str>,
}

impl Scripts {
    /// The scripts among these files, for pages with a file `views/{page}.js` each.
    pub fn new(files: &[(Path, &'static [u8])], pages: &[&str]) -> Self {
        let texts = files.iter().filter(|(path, _)| is_script(path));
        let sources = texts.map(|(path, bytes)| (*path, std::str::from_utf8(bytes).expect("scripts are UTF-8")));
        let mut scripts = Self {
            sources: sources.collect(),
            homes: HashMap::new(),
            ordered: Vec::new(),
        };
        let of_app = scripts.graph(APP);
        let views: BTreeSet<Path> = pages.iter().filter_map(|page| scripts.view_of(page)).collect();
        let graphs: Vec<_> = views.into_iter().map(|view| (view, scripts.graph(view))).collect();
        let paths: Vec<Path> = scripts.sources.keys().copied().collect();
        for path in &paths {
            let users: Vec<Path> = graphs
                .iter()
                .filter(|(_, graph)| graph.contains(path))
                .map(|(view, _)| *view)
                .collect();
            let home = match users[..] {
                _ if of_app.contains(path) => APP,
                [view] => view,
                [_, _, ..] if !path.starts_with("views/") => APP,
                _ => *path,
            };
            scripts.homes.insert(*path, home);
        }
        for path in paths {
            let graph = scripts.graph(path).into_iter();
            let found: Vec<Path> = graph.filter(|one| !scripts.ordered.contains(one)).collect();
            scripts.ordered.extend(found);
        }
        scripts
    }

    fn view_of(&self, page: &str) -> Option<Path> {
        self.sources
            .keys()
            .copied()
            .find(|path| path.strip_prefix("views/").and_then(|name| name.strip_suffix(".js")) == Some(page))
    }

    /// Each file that is served, with its text.
    pub fn files(&self) -> impl Iterator<Item = (Path, String)> {
        let homes: BTreeSet<Path> = self.homes.values().copied().collect();
        homes.into_iter().map(move |home| (home, self.file(home)))
    }

    /// The files that a page waits for before it shows something.
    pub fn needed(&self, page: &str) -> Vec<Path> {
        let mut needed = vec![APP];
        for path in self.view_of(page).map(|view| self.graph(view)).unwrap_or_default() {
            if !needed.contains(&self.homes[path]) {
                needed.push(self.homes[path]);
            }
        }
        needed
    }

    /// The paths of the API that the file of a page names in its `READS`.
    pub fn reads(&self, page: &str) -> Vec<&'static str> {
        let text = self.view_of(page).map_or("", |view| self.sources[view]);
        listed(text, "export const READS = ")
    }

    /// The pages of a list of `lib/page.js`.
    pub fn pages(files: &[(Path, &'static [u8])], list: &str) -> Vec<&'static str> {
        let found = files.iter().find(|(path, _)| *path == "lib/page.js");
        let text = found.map_or("", |(_, bytes)| std::str::from_utf8(bytes).unwrap_or_default());
        listed(text, &format!("const {list} = "))
    }

    /// A module and those that it imports, each behind its own imports.
    fn graph(&self, path: Path) -> Vec<Path> {
        let mut found = Vec::new();
        self.visit(path, &mut BTreeSet::new(), &mut found);
        found
    }

    fn visit(&self, path: Path, entered: &mut BTreeSet<Path>, found: &mut Vec<Path>) {
        if !entered.insert(path) {
            return;
        }
        for (to, _) in self.imports(path) {
            self.visit(to, entered, found);
        }
        found.push(path);
    }

    /// The modules that a module imports before it runs, with the names that it takes from them.
    fn imports(&self, path: Path) -> Vec<(Path, &'static str)> {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let lines = self.sources[path].lines().filter_map(|line| {
            let (names, to) = line
                .strip_prefix("import ")?
                .strip_suffix("';")?
                .rsplit_once(" from '")?;
            let to = match to.strip_prefix("../") {
                Some(above) => above.to_owned(),
                None if folder.is_empty() => to.trim_start_matches("./").to_owned(),
                None => format!("{folder}/{}", to.trim_start_matches("./")),
            };
            let known = self.sources.get_key_value(&*to);
            Some((
                *known
                    .unwrap_or_else(|| panic!("{path} imports {to}, which is not served"))
                    .0,
                names,
            ))
        });
        lines.collect()
    }

    /// A file as it is served.
    fn file(&self, home: Path) -> String {
        let living = self.ordered.iter().copied().filter(|path| self.homes[path] == home);
        let (last, mut members): (Vec<Path>, Vec<Path>) = living.partition(|path| *path == home);
        members.extend(last);
        let mut text = self.imports_from_elsewhere(home, &members);
        if let [alone] = members[..] {
            return text + &without_imports(&without_comments(self.sources[alone]));
        }
        let mut given = Vec::new();
        for path in members {
            let exports = exports(self.sources[path]);
            let names = exports.names.join(", ");
            let body = without_exports(&without_imports(&without_comments(self.sources[path])));
            let lines = body.lines().filter(|line| !line.is_empty());
            text.extend(["// ", path, "\nconst { ", &names, " } = (() => {\n"]);
            lines.for_each(|line| text.extend([line, "\n"]));
            text.extend(["return { ", &names, " };\n})();\n"]);
            given.extend(exports.names.into_iter().map(|name| match exports.default {
                Some(default) if default == name => format!("{name} as default"),
                _ => name.to_owned(),
            }));
        }
        text + &format!("export {{ {} }};\n", given.join(", "))
    }

    /// One import for each other file that modules of this file need.
    fn imports_from_elsewhere(&self, home: Path, members: &[Path]) -> String {
        let mut taken: BTreeMap<Path, BTreeSet<String>> = BTreeMap::new();
        for (to, names) in members.iter().flat_map(|path| self.imports(path)) {
            let to = self.homes[to];
            if to == home {
                continue;
            }
            let names = match names.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(names) => names.split(',').map(|name| name.trim().to_owned()).collect(),
                None => vec![format!("default as {names}")],
            };
            taken.entry(to).or_default().extend(names);
        }
        let root = if home.contains('/') { "../" } else { "./" };
        let line = |(to, names): (Path, BTreeSet<String>)| {
            let names: Vec<String> = names.into_iter().collect();
            format!("import {{ {} }} from '{root}{to}';\n", names.join(", "))
        };
        taken.into_iter().map(line).collect()
    }
}

pub(super) fn is_script(path: &str) -> bool {
    path.rsplit('.').next() == Some("js")
}

/// The texts of a list that stands on one line.
fn listed(text: &'static str, before: &str) -> Vec<&'static str> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(before));
    let list = lines.next().and_then(|rest| rest.strip_prefix('['));
    list.map(|list| list.split('\'').skip(1).step_by(2).collect())
        .unwrap_or_default()
}

/// Its own names alone: none of a default that has no name.
fn exports(text: &str) -> Exports<'_> {
    let mut found = Exports {
        names: Vec::new(),
        default: None,
    };
    for rest in text.lines().filter_map(|line| line.strip_prefix("export ")) {
        let mut words = rest.split([' ', '(', ';', '=']).filter(|word| !word.is_empty());
        match words.next() {
            Some("default") => {
                found.default = words.next();
                found.names.extend(found.default);
            }
            Some("async") => found.names.extend(words.nth(1)),
            _ => found.names.extend(words.next()),
        }
    }
    found
}

fn without_exports(text: &str) -> String {
    let plain = |line: &str| match line.strip_prefix("export ") {
        Some(rest) if rest.starts_with("default ") => String::new(),
        Some(rest) => rest.to_owned(),
        None => line.to_owned(),
    };
    let lines: Vec<String> = text.lines().map(plain).collect();
    lines.join("\n") + "\n"
}

fn without_imports(text: &str) -> String {
    let plain = |line| if is_import(line) { "" } else { line };
    let lines: Vec<&str> = text.lines().map(plain).collect();
    lines.join("\n") + "\n"
}

fn is_import(line: &str) -> bool {
    line.starts_with("import ")
}

/// Empties the lines that are comments from end to end, and takes types out of the others. A test
/// holds that no text goes over several lines, so that no line of a text is taken for a comment.
fn without_comments(text: &str) -> String {
    let mut is_inside = false;
    let kept = |line: &str| {
        let begins = line.trim_start().starts_with("/**");
        if is_inside || begins && !line.contains("*/") {
            is_inside = !line.trim_end().ends_with("*/");
            String::new()
        } else if line.trim_start().starts_with("//") {
            String::new()
        } else {
            without_types(line)
        }
    };
    let lines: Vec<String> = text.lines().map(kept).collect();
    lines.join("\n") + "\n"
}

/// A line of code without `/** … */`.
fn without_types(line: &str) -> String {
    let mut parts = line.split("/**");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.split_once("*/").map_or(part, |(_, rest)| rest.trim_start()));
    }
    kept.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &[(Path, &[u8])] = &[
        (
            "app.js",
            b"import { a } from './lib/a.js';\nimport texts from './texts.js';\n\
              import('./views/one.js');\na(texts);\n",
        ),
        (
            "texts.js",
            b"/** @type {any} */\nconst texts = {};\nexport default texts;\n",
        ),
        ("lib/a.js", b"// Why.\nexport function a() {}\nexport const B = 1;\n"),
        (
            "lib/own.js",
            b"import { B } from './a.js';\nexport class Own { b = B; }\n",
        ),
        ("lib/both.js", b"export async function both() {}\n"),
        (
            "views/one.js",
            b"import { Own } from '../lib/own.js';\nimport { both } from '../lib/both.js';\n\
              import texts from '../texts.js';\nexport const READS = ['/api/x', '/api/y?z=1'];\n\
              export function view() { return [Own, both, texts]; }\n",
        ),
        (
            "views/two.js",
            b"import { both } from '../lib/both.js';\nexport function view() { return both; }\n",
        ),
        ("later.js", b"export function later() {}\n"),
    ];

    fn file(path: &str) -> String {
        let scripts = Scripts::new(FOLDER, &["one", "two"]);
        let mut files = scripts.files();
        files
            .find(|(one, _)| *one == path)
            .map(|(_, text)| text)
            .unwrap_or_default()
    }

    #[test]
    fn a_module_stands_in_one_file_behind_those_that_it_imports() {
        let app = file("app.js");
        let at = |part: &str| app.find(part).unwrap_or_else(|| panic!("{part} is missing: {app}"));
        assert!(at("// lib/a.js\nconst { a, B } = (() => {") < at("// app.js\n"));
        assert!(at("// lib/both.js\n") < at("// app.js\n"), "two pages need it");
        assert!(at("const texts = {};") < at("a(texts);"));
        assert!(at("async function both() {}") < at("return { both };"));
        assert!(app.ends_with("export { a, B, texts as default, both };\n"), "{app}");
        for gone in ["import {", "@type", "Why", "class Own", "later"] {
            assert!(!app.contains(gone), "{gone}: {app}");
        }
        let one = file("views/one.js");
        assert!(
            one.starts_with("import { B, both, default as texts } from '../app.js';\n// lib/own.js\n"),
            "{one}"
        );
        assert!(one.ends_with("export { Own, READS, view };\n"), "{one}");
        assert!(file("lib/own.js").is_empty(), "it has no file of its own");
        assert_eq!(file("later.js"), "export function later() {}\n");
    }

    #[test]
    fn a_page_needs_its_files_and_names_its_reads() {
        let scripts = Scripts::new(FOLDER, &["one", "two"]);
        assert_eq!(scripts.needed("one"), ["app.js", "views/one.js"]);
        assert_eq!(scripts.reads("one"), ["/api/x", "/api/y?z=1"]);
        assert!(scripts.reads("two").is_empty());
        let page: &[(Path, &[u8])] = &[("lib/page.js", b"const SOME = ['a', 'b'];\n")];
        assert_eq!(Scripts::pages(page, "SOME"), ["a", "b"]);
        assert!(Scripts::pages(page, "OTHER").is_empty());
    }

    #[test]
    fn scripts_lose_their_comments_and_nothing_else() {
        let text =
            "// one\n/** two */\nconst a = 'b // c';\n  /**\n   * three\n   */\nd(/** @type {any} */ (e)); // f\n";
        assert_eq!(without_comments(text), "\n\nconst a = 'b // c';\n\n\n\nd((e)); // f\n");
    }
}
