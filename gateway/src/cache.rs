//! A small shared cache (RFC 9111) with request coalescing, for routes that ask for it. Equal requests that arrive
//! while one is in progress wait for its response: a thousand at once are one request to the service.
//!
//! ```text
//! absent ──first request──► fetching ──good response──► stored ──lifetime──► absent
//!                              ├──other response────► hit-for-pass: requests go to the service, for a second ──► absent
//!                              ├──5xx───────────────► absent: the waiting requests fail, too
//!                              └──client gone───────► absent: one of the waiting requests fetches
//! ```
//!
//! [`rules`] says what may be stored. Stale responses are never served, and nothing is revalidated.

pub mod rules; // which requests and answers, and for how long

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{AGE, ETAG, HeaderMap, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use shared::request::is_known;
use tokio::sync::watch;

use self::rules::Vary;

/// How long equal requests bypass the cache after a response that cannot be stored.
const HIT_FOR_PASS: Duration = Duration::from_secs(1);
/// Memory of an entry beside its body and headers, in bytes; roughly.
const OVERHEAD: usize = 512;
/// Whether the cache had the response (RFC 9211).
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// The longest body that is stored, in bytes.
pub const MAX_BODY: u64 = 256 * 1024;

/// The responses of one gateway, shared by its threads.
pub struct Cache {
    entries: Mutex<Entries>,
    /// The most memory, in bytes.
    max: usize,
}

#[derive(Default)]
struct Entries {
    resources: HashMap<String, Resource>,
    /// The URL and the values of each state that takes memory, by its serial number: the oldest is the first.
    order: BTreeMap<u64, (String, Vec<u8>)>,
    bytes: usize,
    next: u64,
}

/// The states of one URL.
#[derive(Default)]
struct Resource {
    /// From the last response. The values of these request headers choose between the stored responses.
    vary: Vary,
    by_values: HashMap<Vec<u8>, State>,
}

enum State {
    Fetching { failed: watch::Receiver<bool>, serial: u64 },
    Stored { answer: Arc<Stored>, serial: u64 },
    HitForPass { until: Instant, serial: u64 },
}

/// A stored response.
#[derive(Debug)]
pub struct Stored {
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    /// When the service made it, by its `Age`.
    made: Instant,
    until: Instant,
}

/// What to do with a request.
pub enum Found {
    Hit(Arc<Stored>),
    /// Ask the service, and give the response to [`Leader::store`].
    Miss(Leader),
    /// Ask the service.
    Bypass,
    /// The service failed for an equal request, which came first.
    Failed,
    /// An equal request, which came first, has no response in time.
    TimedOut,
}

/// The first of equal requests. Others wait for it until it is dropped. If it is dropped without a result, because its
/// client left, one of them takes its place.
pub struct Leader {
    cache: Arc<Cache>,
    key: String,
    request: HeaderMap,
    values: Vec<u8>,
    /// The state that this request may end. If another request has changed the resource meanwhile, that state is gone.
    serial: u64,
    failed: watch::Sender<bool>,
}

impl Cache {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { entries: Mutex::default(), max })
    }

    /// Looks up the request with this `key` and these headers. Waits for at most `timeout` while an equal request is in
    /// progress.
    pub async fn find(self: &Arc<Self>, key: &str, request: &HeaderMap, timeout: Duration) -> Found {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let mut fetching = match self.look(key, request, Instant::now()) {
                Looked::Found(found) => return found,
                Looked::Fetching(receiver) => receiver,
            };
            match tokio::time::timeout_at(deadline, fetching.wait_for(|failed| *failed)).await {
                Ok(Ok(_)) => return Found::Failed,
                // The other one is done.
                Ok(Err(_)) => {}
                Err(_) => return Found::TimedOut,
            }
        }
    }

    /// Invalidates the responses of a URL, because a request may have changed it (RFC 9111 §4.4). A response that is
    /// still in progress may be older than the change, so it is not stored either.
    pub fn forget(&self, key: &str) {
        self.entries().forget(key);
    }

    /// Forgets everything, because routes have changed.
    pub fn clear(&self) {
        let mut entries = self.entries();
        // Serial numbers are not reused, so that no request ends the state of another one.
        *entries = Entries { next: entries.next, ..Entries::default() };
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.entries().bytes
    }

    fn look(self: &Arc<Self>, key: &str, request: &HeaderMap, now: Instant) -> Looked {
        let mut entries = self.entries();
        let resource = entries.resources.entry(key.to_owned()).or_default();
        let values = resource.vary.values(request);
        match resource.by_values.get(&values) {
            Some(State::Fetching { failed, .. }) => return Looked::Fetching(failed.clone()),
            Some(State::Stored { answer, .. }) if now < answer.until => {
                return Looked::Found(Found::Hit(answer.clone()));
            }
            Some(State::HitForPass { until, .. }) if now < *until => return Looked::Found(Found::Bypass),
            _ => {}
        }
        let (failed, receiver) = watch::channel(false);
        let serial = entries.put(key, values.clone(), |serial| State::Fetching { failed: receiver, serial });
        drop(entries);
        let (cache, key, request) = (self.clone(), key.to_owned(), request.clone());
        Looked::Found(Found::Miss(Leader { cache, key, request, values, serial, failed }))
    }

    /// Ends the fetching of `leader` with what `make` makes of a serial number. With `vary`, these headers choose
    /// between the responses of the URL from now on.
    fn end(&self, leader: &Leader, vary: Option<Vary>, make: impl FnOnce(u64) -> State) {
        let mut entries = self.entries();
        if !entries.is_fetching(leader) {
            return;
        }
        let mut values = leader.values.clone();
        if let Some(vary) = vary {
            values = vary.values(&leader.request);
            if entries.resources.get(&leader.key).is_some_and(|resource| resource.vary != vary) {
                entries.forget(&leader.key);
                entries.resources.entry(leader.key.clone()).or_default().vary = vary;
            }
        }
        entries.put(&leader.key, values, make);
        entries.shrink(self.max);
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Looked {
    Found(Found),
    Fetching(watch::Receiver<bool>),
}

impl Entries {
    /// Puts a state in the place of the one before. Returns its serial number.
    fn put(&mut self, key: &str, values: Vec<u8>, make: impl FnOnce(u64) -> State) -> u64 {
        let serial = self.next;
        self.next += 1;
        let state = make(serial);
        let size = state.size(key, &values);
        if size > 0 {
            self.order.insert(serial, (key.to_owned(), values.clone()));
        }
        let resource = self.resources.entry(key.to_owned()).or_default();
        let before = resource.by_values.insert(values.clone(), state);
        self.bytes += size;
        self.gone(key, &values, before);
        serial
    }

    fn forget(&mut self, key: &str) {
        let Some(resource) = self.resources.remove(key) else { return };
        for (values, state) in resource.by_values {
            self.gone(key, &values, Some(state));
        }
    }

    /// Removes a state, if it has this serial number.
    fn remove(&mut self, key: &str, values: &[u8], serial: u64) {
        let Some(resource) = self.resources.get_mut(key) else { return };
        if resource.by_values.get(values).is_none_or(|state| state.serial() != serial) {
            return;
        }
        let state = resource.by_values.remove(values);
        if resource.by_values.is_empty() {
            self.resources.remove(key);
        }
        self.gone(key, values, state);
    }

    /// Counts a state that was removed.
    fn gone(&mut self, key: &str, values: &[u8], state: Option<State>) {
        let Some(state) = state else { return };
        self.bytes -= state.size(key, values);
        self.order.remove(&state.serial());
    }

    /// Removes the oldest states until the others fit.
    fn shrink(&mut self, max: usize) {
        while self.bytes > max {
            let Some((serial, (key, values))) = self.order.pop_first() else { return };
            self.remove(&key, &values, serial);
        }
    }

    fn is_fetching(&self, leader: &Leader) -> bool {
        let state =
            self.resources.get(&leader.key).and_then(|resource| resource.by_values.get(&leader.values));
        state.is_some_and(|state| state.serial() == leader.serial)
    }
}

impl State {
    fn serial(&self) -> u64 {
        match self {
            Self::Fetching { serial, .. } | Self::Stored { serial, .. } | Self::HitForPass { serial, .. } => {
                *serial
            }
        }
    }

    /// Memory, in bytes. The key and the values are here and in the order. What is fetched is bounded by the
    /// connections.
    fn size(&self, key: &str, values: &[u8]) -> usize {
        let names = OVERHEAD + 2 * (key.len() + values.len());
        match self {
            Self::Fetching { .. } => 0,
            Self::HitForPass { .. } => names,
            Self::Stored { answer, .. } => {
                let headers = answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
                names + headers.sum::<usize>() + answer.body.len()
            }
        }
    }
}

impl Leader {
    /// Stores `response` with `body` for as long as `rules` says. The requests that wait for it get it.
    pub fn store(self, response: &HttpResponse, body: Bytes, kept: rules::Kept) {
        let now = Instant::now();
        let headers = response.headers().iter();
        let stored = Stored {
            headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
            body,
            made: now.checked_sub(kept.age).unwrap_or(now),
            until: now + kept.lifetime,
        };
        let answer = Arc::new(stored);
        self.cache.end(&self, Some(kept.vary), |serial| State::Stored { answer, serial });
    }

    /// The service failed: the requests that wait fail, too. The next one asks the service.
    pub fn fail(self) {
        self.failed.send_replace(true);
    }

    /// The response cannot be stored: equal requests go to the service for a while, each on its own.
    pub fn bypass(self) {
        let until = Instant::now() + HIT_FOR_PASS;
        self.cache.end(&self, None, |serial| State::HitForPass { until, serial });
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let mut entries = self.cache.entries();
        if entries.is_fetching(self) {
            entries.remove(&self.key, &self.values, self.serial);
        }
    }
}

impl Stored {
    /// The response to a request with these headers: 304 if its client has it already.
    pub fn response(&self, request: &HeaderMap) -> HttpResponse {
        let etag = self.headers.iter().find(|(name, _)| *name == ETAG);
        let etag = etag.and_then(|(_, value)| value.to_str().ok());
        let is_known = etag.is_some_and(|etag| is_known(request, etag));
        let mut response = match is_known {
            true => HttpResponse::with_body(StatusCode::NOT_MODIFIED, BoxBody::new(())),
            false => HttpResponse::with_body(StatusCode::OK, BoxBody::new(self.body.clone())),
        };
        for (name, value) in &self.headers {
            response.headers_mut().append(name.clone(), value.clone());
        }
        let age = self.made.elapsed().as_secs();
        response.headers_mut().insert(AGE, HeaderValue::from(age));
        response.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static("gateway; hit"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(found: Found) -> Leader {
        match found {
            Found::Miss(leader) => leader,
            Found::Hit(_) => panic!("a hit"),
            Found::Bypass => panic!("a bypass"),
            Found::Failed => panic!("a failure"),
            Found::TimedOut => panic!("a timeout"),
        }
    }

    async fn find(cache: &Arc<Cache>, key: &str, request: &HeaderMap) -> Found {
        cache.find(key, request, Duration::from_secs(5)).await
    }

    fn store(leader: Leader, body: usize, vary: Vary) {
        let kept = rules::Kept { lifetime: Duration::from_secs(60), age: Duration::ZERO, vary };
        leader.store(&HttpResponse::Ok().finish(), vec![0; body].into(), kept);
    }

    #[tokio::test]
    async fn the_oldest_answers_make_room_and_no_more_memory_is_used() {
        let (cache, none) = (Cache::new(100_000), HeaderMap::new());
        for n in 0..1000 {
            let found = leader(find(&cache, &format!("/{n}"), &none).await);
            if n % 3 == 0 {
                found.bypass()
            } else {
                store(found, 10_000, Vary::default())
            }
            assert!(cache.bytes() <= 100_000);
        }
        assert!(matches!(find(&cache, "/998", &none).await, Found::Hit(_)));
        drop(leader(find(&cache, "/1", &none).await));
        let entries = cache.entries();
        assert!(entries.resources.len() < 30 && entries.order.len() < 30);
    }

    #[tokio::test]
    async fn a_request_that_is_dropped_makes_room_for_the_next_one() {
        let (cache, none) = (Cache::new(100_000), HeaderMap::new());
        let first = leader(find(&cache, "/", &none).await);
        let second = tokio::spawn({
            let cache = cache.clone();
            async move { matches!(find(&cache, "/", &HeaderMap::new()).await, Found::Miss(_)) }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(second.await.unwrap());
        assert!(cache.entries().resources.is_empty(), "nothing is left");
    }

    #[tokio::test]
    async fn the_requests_that_wait_for_a_failure_fail_and_the_next_one_asks_the_service() {
        let (cache, none) = (Cache::new(100_000), HeaderMap::new());
        let first = leader(find(&cache, "/", &none).await);
        let second = tokio::spawn({
            let cache = cache.clone();
            async move { matches!(find(&cache, "/", &HeaderMap::new()).await, Found::Failed) }
        });
        tokio::task::yield_now().await;
        first.fail();
        assert!(second.await.unwrap());
        drop(leader(find(&cache, "/", &none).await));
    }

    #[tokio::test]
    async fn a_request_that_waits_too_long_does_not_ask_the_service() {
        let (cache, none) = (Cache::new(100_000), HeaderMap::new());
        let _first = leader(find(&cache, "/", &none).await);
        let second = cache.find("/", &none, Duration::from_millis(1)).await;
        assert!(matches!(second, Found::TimedOut));
    }

    #[tokio::test]
    async fn answers_are_told_apart_by_the_headers_that_vary_names() {
        let cache = Cache::new(100_000);
        let german =
            HeaderMap::from_iter([(actix_web::http::header::ACCEPT_LANGUAGE, "de".parse().unwrap())]);
        let french =
            HeaderMap::from_iter([(actix_web::http::header::ACCEPT_LANGUAGE, "fr".parse().unwrap())]);
        store(leader(find(&cache, "/", &german).await), 1, Vary::of("accept-language").unwrap());
        assert!(matches!(find(&cache, "/", &german).await, Found::Hit(_)));
        store(leader(find(&cache, "/", &french).await), 1, Vary::of("accept-language").unwrap());
        assert!(matches!(find(&cache, "/", &german).await, Found::Hit(_)));
        cache.forget("/");
        drop(leader(find(&cache, "/", &german).await));
        assert_eq!(cache.bytes(), 0);
    }

    #[tokio::test]
    async fn an_answer_that_is_older_than_a_change_of_its_url_is_not_stored() {
        let (cache, none) = (Cache::new(100_000), HeaderMap::new());
        let old = leader(find(&cache, "/", &none).await);
        cache.forget("/");
        let new = leader(find(&cache, "/", &none).await);
        store(old, 1, Vary::default());
        store(new, 2, Vary::default());
        let Found::Hit(answer) = find(&cache, "/", &none).await else { panic!("the new one is stored") };
        assert_eq!(answer.body.len(), 2);
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_stored_leaves_the_other_variants() {
        let cache = Cache::new(100_000);
        let with = |language: &str| {
            HeaderMap::from_iter([(actix_web::http::header::ACCEPT_LANGUAGE, language.parse().unwrap())])
        };
        store(leader(find(&cache, "/", &with("de")).await), 1, Vary::of("accept-language").unwrap());
        leader(find(&cache, "/", &with("odd")).await).bypass();
        assert!(matches!(find(&cache, "/", &with("de")).await, Found::Hit(_)));
    }

    #[tokio::test]
    async fn memory_counts_long_values_of_headers_and_what_was_replaced_leaves_nothing() {
        let cache = Cache::new(100_000);
        let vary = || Vary::of("accept-language").unwrap();
        for n in 0..1000 {
            let value = format!("{n}-{}", "x".repeat(10_000));
            let request =
                HeaderMap::from_iter([(actix_web::http::header::ACCEPT_LANGUAGE, value.parse().unwrap())]);
            store(leader(find(&cache, "/", &request).await), 1, vary());
        }
        let entries = cache.entries();
        assert!(entries.order.len() < 10, "{}", entries.order.len());
        let held: usize = entries.order.values().map(|(key, values)| 2 * (key.len() + values.len())).sum();
        assert!(held <= entries.bytes && entries.bytes <= 100_000);
    }
}
