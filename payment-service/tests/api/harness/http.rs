//! JSON over HTTP.

use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::web::Bytes;
use serde_json::Value;

/// One server, as one person, or one service, or nobody uses it.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) base: String,
    pub(crate) token: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

thread_local! {
    static CLIENT: awc::Client = awc::Client::builder().timeout(Duration::from_secs(30)).finish();
}

impl Http {
    pub(crate) fn at(base: impl ToString) -> Self {
        Self { base: base.to_string(), token: None }
    }

    pub(crate) fn with_token(&self, token: String) -> Self {
        Self { token: Some(token), ..self.clone() }
    }

    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Option<Reply> {
        let mut request = CLIENT.with(|client| client.request(method, format!("{}{path}", self.base)));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for header in headers {
            request = request.insert_header(*header);
        }
        let sent = match body {
            Some(body) => request.send_json(body).await,
            None => request.send().await,
        };
        let mut response = sent.ok()?;
        let bytes = response.body().await.ok()?;
        Some(Reply { status: response.status().as_u16(), headers: response.headers().clone(), bytes })
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.try_send(Method::GET, path, &[], None).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        self.try_send(Method::POST, path, headers, Some(body)).await.unwrap()
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// The body, if the status is as expected.
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.json());
        self.json()
    }

    pub(crate) fn expect_problem(&self, status: u16, code: &str) {
        let body = self.json();
        assert_eq!((self.status, &body["code"]), (status, &code.into()), "{body}");
        assert_eq!(self.headers.get("content-type").unwrap(), "application/problem+json");
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}
