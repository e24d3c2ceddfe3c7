//! The files of the pages. They are in the program; a debug build reads them from the disk, so that a change shows
//! without a build.

use std::borrow::Cow;

use actix_web::HttpResponse;
use actix_web::http::header;
use shared::digest;

/// Name and content of each file in `assets/`, by name.
const FILES: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/assets.rs"));
/// The shell of every view.
pub const SHELL: &str = "console.html";
/// The content security policy: only files of this origin, nothing inline.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

/// The response with the file `name`; `None` if there is no such file.
pub fn response(name: &str) -> Option<HttpResponse> {
    let bytes = file(name)?;
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::ETAG, digest::etag(&bytes)))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "same-origin"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::CONTENT_TYPE, kind_of(name)));
    Some(response.body(bytes.into_owned()))
}

fn file(name: &str) -> Option<Cow<'static, [u8]>> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.starts_with('.') || !name.chars().all(is_plain) {
        return None;
    }
    if cfg!(debug_assertions)
        && let Ok(bytes) = std::fs::read(format!("{}/assets/{name}", env!("CARGO_MANIFEST_DIR")))
    {
        return Some(bytes.into());
    }
    let place = FILES.binary_search_by_key(&name, |(name, _)| *name).ok()?;
    Some(FILES[place].1.into())
}

fn kind_of(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        Some("html") => "text/html; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_name_leads_to_no_other_folder() {
        for name in ["../Cargo.toml", "..", ".hidden", "a/b", "", "..%2fCargo.toml"] {
            assert!(file(name).is_none(), "{name}");
        }
    }

    #[test]
    fn both_languages_have_the_same_keys_with_the_same_places() {
        let texts = ["en.json", "zh-Hans.json"].map(|name| {
            let bytes = file(name).unwrap();
            serde_json::from_slice::<BTreeMap<String, String>>(&bytes).unwrap()
        });
        let places = |text: &str| {
            let mut places: Vec<_> = text
                .split('{')
                .skip(1)
                .filter_map(|rest| rest.split('}').next())
                .map(str::to_owned)
                .collect();
            places.sort();
            places
        };
        let [english, chinese] = &texts;
        assert_eq!(english.keys().collect::<Vec<_>>(), chinese.keys().collect::<Vec<_>>());
        for (key, text) in english {
            assert_eq!(places(text), places(&chinese[key]), "{key}");
            assert!(!text.trim().is_empty() && !chinese[key].trim().is_empty(), "{key} is empty");
        }
    }
}
