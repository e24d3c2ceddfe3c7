//! No input makes a 500, on the services' own ports too. Every operation of every OpenAPI document gets odd values
//! in its path, query, headers and body.

#![allow(clippy::unwrap_used, reason = "a test")]

use e2e::Stack;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Percent-encoded, for paths and queries.
fn odd_values() -> Vec<String> {
    let plain = [
        "",
        "0",
        "-1",
        "1e999",
        "99999999999999999999",
        "NaN",
        "null",
        "%00",
        "%ff%fe",
        "%F0%9F%92%A9",
        "'",
        "%22%3E",
        "a%20b",
    ];
    let mut values: Vec<String> = plain.map(str::to_owned).to_vec();
    values.extend(["a".repeat(4000), "9".repeat(300), "%C3%A9".repeat(300)]);
    values
}

const ODD_HEADERS: [(&str, &str); 12] = [
    ("if-match", "\"99999999999999999999\""),
    ("if-match", "W/\"1\", x, \""),
    ("idempotency-key", "\u{e9}"),
    ("prefer", "wait=-1"),
    ("prefer", "wait=99999999999999999999"),
    ("accept", ";;q=x"),
    ("accept", ""),
    ("content-type", "text/x; ;"),
    ("content-encoding", "gzip"),
    ("last-event-id", "-99999999999999999999"),
    ("authorization", "Bearer a.b.c"),
    ("x-request-id", "\u{e9}"),
];

const ODD_BODIES: [&str; 9] =
    ["", "{", "[]", "null", "\"x\"", "{}", "{\"lines\":[{}]}", "{\"amount\":{\"amount\":1e400}}", "\u{0}"];

/// Requests to one program, with an admin's token.
struct Attempts {
    authority: String,
    token: String,
    count: usize,
    failed: Vec<String>,
}

impl Attempts {
    async fn send(&mut self, method: &str, path: &str, header: (&str, &str), body: &str) {
        let (name, value) = header;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
             {name}: {value}\r\ncontent-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let status = self.status(&request).await.unwrap_or_default();
        self.count += 1;
        if !(200..500).contains(&status) {
            let shown: String = path.chars().take(80).collect();
            self.failed.push(format!("{status}: {method} {shown} {header:?} {body:?}"));
        }
    }

    /// Only the status is read: an event stream does not end.
    async fn status(&self, request: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(&self.authority).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut line = [0; 12];
        stream.read_exact(&mut line).await.ok()?;
        std::str::from_utf8(&line).ok()?.rsplit(' ').next()?.parse().ok()
    }
}

#[actix_web::test]
async fn no_input_makes_a_500() {
    let stack = Stack::start_with(&[("RATE_LIMITS", "off")]).await;
    let admin = stack.admin().await.api.token.unwrap();
    let (mut count, mut failed) = (0, Vec::new());
    let services = xtask::services().map(|service| stack.direct(service.name));
    for program in services.chain([stack.public.clone()]) {
        let authority = program.base.trim_start_matches("http://").to_owned();
        let mut attempts = Attempts { authority, token: admin.clone(), count: 0, failed: Vec::new() };
        let document = program.get("/openapi.json").await.body;
        for (template, item) in document["paths"].as_object().unwrap() {
            let methods = ["GET", "POST", "PUT", "PATCH", "DELETE"];
            for method in methods.into_iter().filter(|method| !item[method.to_lowercase()].is_null()) {
                // Nobody's.
                let path = fill(template, "01890000-0000-7000-8000-000000000000");
                for value in odd_values() {
                    attempts.send(method, &fill(template, &value), ODD_HEADERS[0], "").await;
                    for name in ["limit", "cursor", "status", "q", "customer_id", "order_id", "state", "x"] {
                        attempts
                            .send(method, &format!("{path}?{name}={value}&{name}"), ODD_HEADERS[0], "")
                            .await;
                    }
                }
                for header in ODD_HEADERS {
                    attempts.send(method, &path, header, "{}").await;
                }
                for body in ODD_BODIES {
                    attempts.send(method, &path, ("content-type", "application/json"), body).await;
                }
            }
        }
        count += attempts.count;
        failed.extend(attempts.failed);
    }
    assert!(failed.is_empty(), "{} of {count}:\n{}", failed.len(), failed.join("\n"));
    assert!(count > 3000, "{count}");
}

/// The path with `value` for each parameter.
fn fill(template: &str, value: &str) -> String {
    let parts = template.split('/').map(|part| if part.starts_with('{') { value } else { part });
    parts.collect::<Vec<_>>().join("/")
}
