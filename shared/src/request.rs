//! Extractors for everything but the body: path ids, query parameters, paging, `If-Match`, `Prefer`.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::str::FromStr;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{
    CONNECTION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH, TRANSFER_ENCODING,
};
use actix_web::{FromRequest, HttpRequest, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::problem::{Problem, codes};

pub fn has_body(request: &HttpRequest) -> bool {
    request.headers().contains_key(TRANSFER_ENCODING)
        || request.headers().get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// Whether `path` is `prefix`, or below it: `/a/b` is below `/a`, and `/ab` is not.
pub fn is_at_or_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The options in `Connection` (RFC 9110 §7.6.1). Bytes, because a value need not be text.
pub fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(CONNECTION).map(|value| value.as_bytes());
    values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// The id in the path `…/{id}…`; a malformed one gets 404.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathId(pub Uuid);

/// Query parameters; unknown ones are ignored.
#[derive(Debug, Clone, Default)]
pub struct Params(BTreeMap<String, String>);

/// Keyset paging: `?limit=&cursor=`, newest first.
///
/// A store reads [`Paging::fetch`] rows with `id < cursor` (ids are UUIDv7, so they sort by time), and
/// [`Paging::page`] makes a page of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paging {
    /// Items per page: 1 to 100, by default 20.
    pub limit: usize,
    /// Last id of the previous page.
    pub cursor: Option<Uuid>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Newest first.
    pub items: Vec<T>,
    /// The `cursor` of the next page; `None` on the last page.
    pub next_cursor: Option<String>,
}

/// The `If-Match` header, for optimistic locking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch(Option<String>);

/// `Prefer: wait=N` (RFC 7240), capped at 30 s; a malformed one is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreferWait(pub Option<Duration>);

/// The `ETag` of a resource's version.
pub fn etag(version: i64) -> (HeaderName, String) {
    (ETAG, format!("\"{version}\""))
}

/// Whether the client has the version of `etag`, by `If-None-Match` (weak comparison, RFC 9110 §13.1.2).
pub fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let known = headers.get_all(IF_NONE_MATCH).filter_map(|tags| tags.to_str().ok());
    known.flat_map(|tags| tags.split(',')).any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}

impl FromStr for PathId {
    type Err = Problem;

    /// Accepts every spelling that a body may have, too: some languages write ids in upper case.
    fn from_str(text: &str) -> Result<Self, Problem> {
        Uuid::try_parse(text).map(Self).map_err(|_| Problem::not_found())
    }
}

impl FromRequest for PathId {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(request.match_info().get("id").ok_or_else(Problem::not_found).and_then(str::parse))
    }
}

impl Params {
    /// 400 if the parameter cannot be parsed as `T`; the message tells the client that it must be `wanted`.
    pub fn optional<T: FromStr>(&self, name: &str, wanted: &str) -> Result<Option<T>, Problem> {
        match self.0.get(name) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| Problem::invalid_parameter(name, format!("must be {wanted}"))),
        }
    }
}

impl FromRequest for Params {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        ready(match pairs {
            Ok(pairs) => Ok(Self(pairs.into_inner().into_iter().collect())),
            Err(_) => Err(Problem::invalid_parameter("query", "must be name=value pairs")),
        })
    }
}

impl Paging {
    /// Rows to read: one more than fits, to know whether there is a next page.
    pub fn fetch(&self) -> i64 {
        self.limit as i64 + 1
    }

    /// Makes a page of the `fetched` rows.
    pub fn page<T>(&self, mut fetched: Vec<T>, id: impl Fn(&T) -> Uuid) -> Page<T> {
        let more = fetched.len() > self.limit;
        fetched.truncate(self.limit);
        let next_cursor = fetched.last().filter(|_| more).map(|last| cursor_of(id(last)));
        Page { items: fetched, next_cursor }
    }

    fn from_params(params: &Params) -> Result<Self, Problem> {
        let limit = params.optional("limit", LIMITS)?.unwrap_or(20);
        if !(1..=100).contains(&limit) {
            return Err(Problem::invalid_parameter("limit", format!("must be {LIMITS}")));
        }
        let cursor = params.optional::<Cursor>("cursor", "a next_cursor of this list")?;
        Ok(Self { limit, cursor: cursor.map(|Cursor(id)| id) })
    }
}

const LIMITS: &str = "a number from 1 to 100";

impl FromRequest for Paging {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let params = Params::from_request(request, payload).into_inner();
        ready(params.and_then(|params| Self::from_params(&params)))
    }
}

/// An id with a checksum that detects a modified cursor.
struct Cursor(Uuid);

fn cursor_of(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode([&id.as_bytes()[..], &checksum(id)].concat())
}

fn checksum(id: Uuid) -> [u8; 4] {
    let digest = Sha256::digest([&b"cursor"[..], id.as_bytes()].concat());
    [digest[0], digest[1], digest[2], digest[3]]
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(drop)?;
        let (id, sum) = bytes.split_at_checked(16).ok_or(())?;
        let id = Uuid::from_slice(id).map_err(drop)?;
        if sum == checksum(id) { Ok(Self(id)) } else { Err(()) }
    }
}

impl IfMatch {
    /// 412 `stale_version` if the header is present and does not match `version` (strong comparison, RFC 9110
    /// §13.1.1).
    pub fn check(&self, version: i64) -> Result<(), Problem> {
        let Some(wanted) = &self.0 else { return Ok(()) };
        let current = etag(version).1;
        if wanted.split(',').map(str::trim).any(|tag| tag == "*" || tag == current) {
            return Ok(());
        }
        Err(Problem::new(
            codes::STALE_VERSION,
            format!("This has version {current} now: read it again before you change it."),
        ))
    }
}

impl FromRequest for IfMatch {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let tags: Vec<_> = request
            .headers()
            .get_all(IF_MATCH)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        ready(Ok(Self((!tags.is_empty()).then(|| tags.join(",")))))
    }
}

impl PreferWait {
    const LONGEST: u64 = 30;

    fn from_header(text: &str) -> Option<Duration> {
        let seconds = text.split([',', ';']).find_map(|preference| {
            let (name, value) = preference.split_once('=')?;
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("wait").then(|| value.parse::<u64>().ok()).flatten()
        })?;
        Some(Duration::from_secs(seconds.min(Self::LONGEST)))
    }
}

impl FromRequest for PreferWait {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut values = request.headers().get_all("prefer").filter_map(|value| value.to_str().ok());
        ready(Ok(Self(values.find_map(Self::from_header))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn paging(query: &str) -> Result<Paging, Problem> {
        let request = TestRequest::with_uri(&format!("/things?{query}")).to_http_request();
        Paging::extract(&request).into_inner()
    }

    fn if_match(value: &'static str) -> IfMatch {
        let request = TestRequest::default().insert_header((IF_MATCH, value)).to_http_request();
        IfMatch::extract(&request).into_inner().unwrap()
    }

    #[test]
    fn a_cursor_leads_to_the_next_page_and_a_tampered_one_is_refused() {
        let first = paging("limit=2").unwrap();
        let ids: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
        assert_eq!(first.fetch(), 3);
        let page = first.page(ids.clone(), |id| *id);
        assert_eq!(page.items, ids[..2]);
        let cursor = page.next_cursor.unwrap();
        assert_eq!(paging(&format!("cursor={cursor}")).unwrap().cursor, Some(ids[1]));

        let tampered = format!("{}{}", if cursor.starts_with('A') { 'B' } else { 'A' }, &cursor[1..]);
        for bad in [tampered.as_str(), "", "%00", &cursor[..10]] {
            assert_eq!(paging(&format!("cursor={bad}")).unwrap_err().status(), 400, "{bad}");
        }
    }

    #[test]
    fn the_last_page_has_no_next_cursor() {
        let page = paging("limit=2").unwrap().page(vec![Uuid::now_v7(), Uuid::now_v7()], |id| *id);
        assert_eq!(page.next_cursor, None);
    }

    #[test]
    fn a_limit_outside_1_to_100_is_refused_and_other_names_are_ignored() {
        for bad in ["0", "101", "-1", "many", "", "1e1"] {
            assert_eq!(paging(&format!("limit={bad}")).unwrap_err().code(), "invalid_parameter", "{bad}");
        }
        assert_eq!(paging("colour=red").unwrap().limit, 20);
    }

    #[test]
    fn only_a_matching_version_or_a_star_passes_if_match() {
        for good in ["\"3\"", "*", "\"1\", \"3\""] {
            assert_eq!(if_match(good).check(3), Ok(()), "{good}");
        }
        for stale in ["\"2\"", "W/\"3\"", "3", ""] {
            assert_eq!(if_match(stale).check(3).unwrap_err().code(), "stale_version", "{stale}");
        }
        let absent = IfMatch::extract(&TestRequest::default().to_http_request()).into_inner().unwrap();
        assert_eq!(absent.check(3), Ok(()));
    }

    #[test]
    fn a_path_is_below_a_prefix_of_whole_segments_only() {
        for below in ["/a", "/a/", "/a/b"] {
            assert!(is_at_or_below(below, "/a"), "{below}");
        }
        for other in ["/ab", "/", "", "/b/a"] {
            assert!(!is_at_or_below(other, "/a"), "{other}");
        }
    }

    #[test]
    fn a_tag_is_known_also_as_a_weak_one_in_a_list_or_by_a_star() {
        let known = |value: &'static str, etag: &str| {
            let request = TestRequest::default().insert_header((IF_NONE_MATCH, value)).to_http_request();
            is_known(request.headers(), etag)
        };
        for value in ["\"3\"", "W/\"3\"", "\"1\", \"3\"", "*"] {
            assert!(known(value, "\"3\"") && known(value, "W/\"3\""), "{value}");
        }
        for value in ["\"2\"", "3", "", "\"33\""] {
            assert!(!known(value, "\"3\""), "{value}");
        }
    }

    #[test]
    fn prefer_wait_is_capped_and_a_malformed_one_is_ignored() {
        let seconds = |text| PreferWait::from_header(text).map(|wait| wait.as_secs());
        assert_eq!(seconds("wait=5"), Some(5));
        assert_eq!(seconds("respond-async, wait=100"), Some(30));
        assert_eq!(seconds("wait=soon"), None);
        assert_eq!(seconds("handling=lenient"), None);
    }

    #[test]
    fn a_malformed_id_is_not_found() {
        for good in ["018f3f1e-0000-7000-8000-000000000000", "018F3F1E-0000-7000-8000-000000000000"] {
            assert!(good.parse::<PathId>().is_ok());
        }
        for bad in ["", "7", "018f3f1e-0000-7000-8000-00000000000", "018f3f1e-0000-7000-8000-00000000000g"] {
            assert_eq!(bad.parse::<PathId>().unwrap_err().code(), "not_found");
        }
    }
}
