//! TLS towards clients: reads the certificates again when they change, and redirects from HTTP to HTTPS.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Data;
use arc_swap::ArcSwap;
use shared::service::Scheme;
use shared::stop::Stop;
use shared::tls::ClientTls;

use crate::admin::Console;
use crate::routing::Table;
use crate::watch::Watch;

/// Reads the certificates again when their files have changed. If they are unusable, the current ones stay in force.
pub async fn watch(
    folder: PathBuf,
    tls: Option<ClientTls>,
    table: Arc<ArcSwap<Table>>,
    console: Data<Console>,
    stop: Stop,
) {
    let Some(tls) = tls else { return stop.requested().await };
    let files = || table.load().config.tls.as_ref().map(|entry| entry.files(&folder)).unwrap_or_default();
    let mut watch = Watch::new(files);
    let mut is_first = true;
    while !stop.is_requested() {
        // This also runs at the start, for a change since the certificates were read.
        if !std::mem::take(&mut is_first) {
            tokio::select! {
                () = watch.changed() => {}
                () = stop.requested() => return,
            }
        }
        let table = table.load();
        let Some(entry) = &table.config.tls else { continue };
        let refused = entry.read(&folder).map(|certificates| tls.replace(certificates)).err();
        let mut last = console.refused_certificates.lock().unwrap_or_else(PoisonError::into_inner);
        match &refused {
            Some(why) if refused != *last => {
                log::error!(error = why; "the certificates cannot be read again: the current ones stay in force");
            }
            None => log::info!("the certificates were read"),
            _ => {}
        }
        *last = refused;
    }
}

/// Where a request without TLS is redirected to.
pub fn redirect(request: &HttpRequest, table: &Table) -> Option<String> {
    let port = table.config.tls.as_ref()?.redirect_port?;
    if Scheme::of(request) == Scheme::Https || is_forwarded_https(request, table) {
        return None;
    }
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    // The colons of an IPv6 address do not count.
    let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    match port {
        443 => Some(format!("https://{name}{target}")),
        port => Some(format!("https://{name}:{port}{target}")),
    }
}

/// `Strict-Transport-Security`.
pub fn hsts(table: &Table) -> Option<HeaderValue> {
    HeaderValue::try_from(table.config.tls.as_ref()?.hsts.as_ref()?).ok()
}

/// Whether a proxy in front of the gateway had the request with TLS.
fn is_forwarded_https(request: &HttpRequest, table: &Table) -> bool {
    let is_trusted = request.peer_addr().is_some_and(|peer| table.is_trusted(&peer.ip()));
    is_trusted && request.headers().get(header::X_FORWARDED_PROTO).is_some_and(|proto| proto == "https")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::ServiceLimits;
    use actix_web::test::TestRequest;
    use shared::balancer::{Pool, Settings};
    use std::time::Instant;

    fn redirected(host: &str, target: &str, port: u16) -> Option<String> {
        let text = format!(
            "trusted_proxies = [\"10.0.0.0/8\"]\n[tls]\nport = 8443\nredirect_port = {port}\ncertificates = []\n[[routes]]\nid = \"a\"\nprefix = \"/a\"\nservice = \"a\"\n"
        );
        let limits = Arc::new(ServiceLimits::new(Instant::now()));
        let table = Table::read(&text, |service| Pool::new(service, Settings::default()), |_| limits.clone())
            .unwrap();
        let request = TestRequest::with_uri(target).insert_header((header::HOST, host));
        redirect(&request.to_http_request(), &table)
    }

    #[test]
    fn a_redirect_keeps_host_path_and_query_and_has_the_port_unless_it_is_443() {
        for (host, target, port, wanted) in [
            ("shop.example", "/a?b=c", 443, "https://shop.example/a?b=c"),
            ("shop.example:8080", "/", 8443, "https://shop.example:8443/"),
            ("[::1]", "/a", 443, "https://[::1]/a"),
            ("[::1]:8080", "/a", 8443, "https://[::1]:8443/a"),
        ] {
            assert_eq!(redirected(host, target, port).as_deref(), Some(wanted), "{host}");
        }
    }
}
