use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use storefront::domain::Language;
use storefront::views::texts::Texts;

use crate::harness::{product, start};

/// Bytes of a page with all that it loads.
const LIMIT: usize = 150 * 1024;

/// Name and text of each file in a folder of the crate.
fn files(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let read = |file: std::path::PathBuf| {
        (file.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&file).unwrap())
    };
    files.map(read).collect()
}

fn scripts() -> Vec<(String, String)> {
    files("assets").into_iter().filter(|(name, _)| name.ends_with(".js")).collect()
}

/// What stands between `open` and the next `close`, everywhere in `text`.
fn between<'a>(text: &'a str, open: &str, close: char) -> Vec<&'a str> {
    text.split(open).skip(1).filter_map(|rest| rest.split(close).next()).collect()
}

#[actix_web::test]
async fn every_page_with_all_that_it_loads_is_small() {
    let replica = start().await;
    *replica.stubs.products.lock().unwrap() = vec![product("Green tea", 7); 24];
    for path in ["/", "/shop/orders", "/shop/orders/01890000-0000-7000-8000-000000000000"] {
        let page = replica.api.get(path).await;
        let (mut size, mut seen) = (page.bytes.len(), BTreeSet::new());
        let mut waiting: Vec<String> = ["src=\"", "href=\""]
            .iter()
            .flat_map(|open| {
                between(&page.text(), open, '"').into_iter().map(str::to_owned).collect::<Vec<_>>()
            })
            .filter(|name| name.starts_with("/shop/assets/") || name.starts_with("/shop/pictures/"))
            .collect();
        waiting.extend(Language::ALL.map(|language| format!("/shop/assets/{}.json", language.tag())));
        while let Some(name) = waiting.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let file = replica.api.get(&name).await;
            assert_eq!(file.status, 200, "{name}");
            size += file.bytes.len();
            let imports = file.text();
            waiting.extend(
                between(&imports, "from './", '\'').iter().map(|name| format!("/shop/assets/{name}")),
            );
        }
        println!("{path}: {size} bytes in {} files", seen.len());
        assert!(seen.len() > 8 && size < LIMIT, "{path}: {size} bytes");
    }
}

#[actix_web::test]
async fn every_file_is_served_with_its_kind_and_not_sent_again_to_who_has_it() {
    let replica = start().await;
    for (name, text) in files("assets") {
        let path = format!("/shop/assets/{name}");
        let file = replica.api.get(&path).await;
        assert_eq!((file.status, file.text()), (200, text), "{name}");
        let kind = match name.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "json" => "application/json",
            _ => "image/svg+xml",
        };
        assert_eq!((file.header("content-type"), file.header("x-content-type-options")), (kind, "nosniff"));
        assert_eq!(file.header("cache-control"), "no-cache");
        let again = replica.api.with("if-none-match", format!("\"other\", W/{}", file.header("etag")));
        let again = again.get(&path).await;
        assert_eq!((again.status, again.bytes.len(), again.header("etag")), (304, 0, file.header("etag")));
    }
    for nowhere in ["/shop/assets/none.js", "/shop/assets/..%2fCargo.toml", "/shop/assets/"] {
        replica.api.get(nowhere).await.expect_problem(404, "not_found");
    }
    let picture = replica.api.get("/shop/pictures/%3Cscript%3E").await;
    assert_eq!((picture.status, picture.header("content-type")), (200, "image/svg+xml"));
    assert!(!picture.text().contains("script"), "{}", picture.text());
    assert!(picture.header("content-security-policy").starts_with("default-src 'none'"));
}

#[test]
fn no_script_makes_markup_or_code_of_data_and_no_token_is_stored() {
    for (name, text) in scripts() {
        for never in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "DOMParser",
            "srcdoc",
        ] {
            assert!(!text.contains(never), "{name}: {never}");
        }
        for line in text.lines().filter(|line| line.contains("Storage.")) {
            assert!(name == "cart.js" || name == "checkout.js", "{name}: {line}");
        }
    }
}

#[test]
fn every_sentence_that_a_page_or_a_script_names_is_in_the_texts_and_none_is_unused() {
    let texts = Texts::of(Language::English).unwrap();
    let known: BTreeSet<_> = texts.keys().collect();
    let sources = [files("templates"), scripts()].concat();
    let all: String = sources.iter().map(|(_, text)| text.as_str()).collect();
    for open in ["text('", "text(\"", "with(\""] {
        for key in between(&all, open, if open.ends_with('"') { '"' } else { '\'' }) {
            assert!(known.contains(key), "{key}");
        }
    }
    // Keys that a script puts together.
    let made = [
        "account.", "card.", "error.", "orders.", "reason.", "status.", "step.", "told.", "pay.", "frame.",
        "keys.",
    ];
    for key in known {
        let is_used = all.contains(&format!("'{key}'")) || all.contains(&format!("\"{key}\""));
        assert!(is_used || made.iter().any(|prefix| key.starts_with(prefix)), "{key} is unused");
    }
}
