//! A request that goes wrong ends no other request, with HTTP/1.1 and with HTTP/2 (here without TLS).

use std::rc::Rc;
use std::sync::{Mutex, Once, PoisonError};

use actix_web::middleware::from_fn;
use actix_web::test::init_service;
use actix_web::web::{Bytes, Data, ServiceConfig, get};
use actix_web::{App, Error, HttpResponse};
use futures_util::stream::{self, StreamExt as _};
use h2::client::SendRequest;
use log::kv::{Key, Value, VisitSource};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::connection::Http2;
use super::drain::Drain;
use super::middleware::{Middleware, middleware};
use super::shares::Shares;
use super::{Field, HttpConfig, LogFields, Sent, Service};
use crate::problem::{PROBLEM_JSON, Problem};
use crate::stop::{Stop, Stopper};
use crate::testing::run;
use crate::tls::Stream;
use crate::trace::Current;

/// The lines of level `error`, with the ids of their requests.
static LINES: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, line: &log::Metadata<'_>) -> bool {
        line.level() == log::Level::Error
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut fields = Fields(record.args().to_string());
        record.key_values().visit(&mut fields).unwrap();
        let id = Current::with(|current| current.request_id().map(str::to_owned)).flatten();
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push((id.unwrap_or_default(), fields.0));
    }

    fn flush(&self) {}
}

struct Fields(String);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        self.0.push_str(&format!(" {key}={value}"));
        Ok(())
    }
}

fn record() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_boxed_logger(Box::new(Recorder)).unwrap();
        log::set_max_level(log::LevelFilter::Error);
    });
}

fn lines_of(id: &str) -> Vec<String> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().filter(|(of, _)| of == id).map(|(_, line)| line.clone()).collect()
}

/// Lets `/waits` go on.
struct Gate {
    waiting: Semaphore,
    open: Semaphore,
}

impl Gate {
    fn shut() -> Data<Self> {
        Data::new(Self { waiting: Semaphore::new(0), open: Semaphore::new(0) })
    }
}

async fn waits(gate: Data<Gate>) -> HttpResponse {
    gate.waiting.add_permits(1);
    let _open = gate.open.acquire().await.unwrap();
    HttpResponse::Ok().body("done")
}

async fn panics() -> HttpResponse {
    panic!("a secret: {}", 7)
}

async fn breaks() -> HttpResponse {
    let parts = stream::iter([true, false]).map(|is_good| {
        assert!(is_good, "a secret of a body");
        Ok::<_, Error>(Bytes::from_static(b"a part"))
    });
    HttpResponse::Ok().streaming(parts)
}

fn configure(app: &mut ServiceConfig, gate: &Data<Gate>) {
    app.app_data(gate.clone())
        .route("/waits", get().to(waits))
        .route("/panics", get().to(panics))
        .route("/breaks", get().to(breaks));
}

/// A client with one HTTP/2 connection to a service that has at most `max` requests at a time.
async fn connect(gate: &Data<Gate>, max: usize) -> (SendRequest<Bytes>, Stopper) {
    let (stopper, draining) = Stop::pair();
    let drain = Drain::new(draining.clone());
    let settings = Data::new(Middleware::new("a-service", drain, false, None, None, None));
    let gate = gate.clone();
    let app = App::new().app_data(settings).configure(|app| configure(app, &gate)).wrap(from_fn(middleware));
    let http2 = Http2 {
        app: Rc::new(init_service(app).await),
        service: "a-service",
        limits: HttpConfig::for_tests().limits,
        requests: Shares::new(max, None),
        idle: Rc::default(),
        draining,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    actix_web::rt::spawn(Rc::new(http2).serve(Stream::Plain(stream), peer));
    let (client, connection) = h2::client::handshake(client).await.unwrap();
    actix_web::rt::spawn(async move { connection.await.map(drop).unwrap_or_default() });
    (client, stopper)
}

/// The head of a response, and its body unless that breaks off.
type Answer = (::http::Response<()>, Result<String, h2::Error>);

async fn ask(client: &SendRequest<Bytes>, path: &str) -> Result<Answer, h2::Error> {
    let request = ::http::Request::get(format!("http://a.example{path}")).body(()).unwrap();
    let (response, _) = client.clone().ready().await?.send_request(request, true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut text = String::new();
    let text = loop {
        match body.data().await {
            Some(Ok(part)) => text.push_str(str::from_utf8(&part).unwrap()),
            Some(Err(error)) => break Err(error),
            None => break Ok(text),
        }
    };
    Ok((::http::Response::from_parts(head, ()), text))
}

fn header<'a>(head: &'a ::http::Response<()>, name: &str) -> &'a str {
    head.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Begins a request that waits until the gate opens.
async fn begin_to_wait(
    client: &SendRequest<Bytes>,
    gate: &Gate,
) -> tokio::task::JoinHandle<Result<Answer, h2::Error>> {
    let client = client.clone();
    let waiting = actix_web::rt::spawn(async move { ask(&client, "/waits").await });
    gate.waiting.acquire().await.unwrap().forget();
    waiting
}

/// The request of [`begin_to_wait`] gets its response.
async fn goes_on(waiting: tokio::task::JoinHandle<Result<Answer, h2::Error>>, gate: &Gate) {
    gate.open.add_permits(1);
    let (head, body) = waiting.await.unwrap().unwrap();
    assert_eq!((head.status().as_u16(), body.unwrap().as_str()), (200, "done"));
}

#[actix_web::test]
async fn a_handler_that_panics_answers_500_and_its_message_is_only_in_the_log_under_the_request_id() {
    record();
    let gate = Gate::shut();
    let of_server = gate.clone();
    let service = Service::bind("a-service", HttpConfig::for_tests()).unwrap();
    let (api, _server) = run(service.configure(move |app| configure(app, &of_server)).build().unwrap());
    let mut answers = Vec::new();
    for api in [api.clone(), api.with("x-request-timeout-ms", "5000")] {
        let reply = api.get("/panics").await;
        reply.expect_problem(500, "internal");
        answers.push((reply.header("x-request-id").to_owned(), reply.text()));
    }
    let (client, _stopper) = connect(&gate, 10).await;
    let (head, body) = ask(&client, "/panics").await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-type")), (500, PROBLEM_JSON));
    answers.push((header(&head, "x-request-id").to_owned(), body.unwrap()));
    for (id, text) in answers {
        assert!(!text.contains("secret") && text.contains(&id), "{text}");
        let lines = lines_of(&id);
        assert!(lines.iter().any(|line| line.contains("a secret: 7")), "{lines:?}");
        assert!(
            lines.iter().any(|line| line.starts_with("internal") && line.contains("status=500")),
            "{lines:?}"
        );
    }
}

/// Adds one field.
struct Named;

impl LogFields for Named {
    fn fields(&self, sent: Sent, problem: Option<&Problem>) -> Vec<(&'static str, Field)> {
        let code = problem.map_or("none", Problem::code);
        vec![
            ("person", Field::Name("ann")),
            ("code", Field::Name(code)),
            ("bytes_out", Field::Number(sent.bytes)),
        ]
    }
}

#[actix_web::test]
async fn a_request_whose_handler_panics_has_one_line_with_all_fields() {
    record();
    let of_server = Gate::shut();
    let service = Service::bind("a-service", HttpConfig::for_tests()).unwrap();
    let service =
        service.configure(move |app| configure(app, &of_server)).log_fields(|_| Some(Rc::new(Named)));
    let (api, _server) = run(service.build().unwrap());
    let reply = api.get("/panics").await;
    let lines = lines_of(reply.header("x-request-id"));
    let mut lines = lines.iter().filter(|line| line.contains("method=GET"));
    let line = lines.next().unwrap();
    let fields = format!("status=500 person=ann code=internal bytes_out={}", reply.bytes.len());
    assert!(fields.split(' ').all(|field| line.contains(field)), "{line}");
    assert_eq!(lines.next(), None);
}

#[actix_web::test]
async fn a_handler_that_panics_ends_no_other_request_of_its_http_2_connection() {
    let gate = Gate::shut();
    let (client, _stopper) = connect(&gate, 10).await;
    let waiting = begin_to_wait(&client, &gate).await;
    for _ in 0..3 {
        assert_eq!(ask(&client, "/panics").await.unwrap().0.status(), 500);
    }
    goes_on(waiting, &gate).await;
}

#[actix_web::test]
async fn a_body_that_panics_breaks_off_and_ends_no_other_request_of_its_http_2_connection() {
    record();
    let gate = Gate::shut();
    let (client, _stopper) = connect(&gate, 10).await;
    let waiting = begin_to_wait(&client, &gate).await;
    // The reset may overtake the head.
    let error = match ask(&client, "/breaks").await {
        Ok((_, body)) => body.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let logged = lines.iter().find(|(_, line)| line.contains("a secret of a body"));
    assert!(logged.is_some_and(|(id, _)| !id.is_empty()), "{lines:?}");
    goes_on(waiting, &gate).await;
}

#[actix_web::test]
async fn a_client_whose_requests_are_refused_because_the_server_is_full_stays_connected() {
    let gate = Gate::shut();
    let (client, _stopper) = connect(&gate, 1).await;
    let waiting = begin_to_wait(&client, &gate).await;
    // Many more than a client may have malformed ones.
    for _ in 0..300 {
        let (head, _) = ask(&client, "/waits").await.unwrap();
        assert_eq!((head.status().as_u16(), header(&head, "retry-after")), (503, "1"));
    }
    goes_on(waiting, &gate).await;
}
