//! TLS towards clients: reads the certificates again when they change, and redirects from HTTP to HTTPS.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use actix_web::HttpRequest;
use actix_web::http::header::HeaderValue;
use actix_web::web::Data;
use arc_swap::ArcSwap;
use shared::problem::Problem;
use shared::service::Scheme;
use shared::stop::Stop;
use shared::tls::ClientTls;

use crate::address::{host, scheme};
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

/// Where a request without TLS is redirected to; 400 if it has no `Host`, so that there is no such place.
pub fn redirect(request: &HttpRequest, table: &Table) -> Result<Option<String>, Problem> {
    let port = table.config.tls.as_ref().and_then(|tls| tls.redirect_port);
    let Some(port) = port.filter(|_| scheme(request, table) == Scheme::Http) else { return Ok(None) };
    let host = host(request).ok_or_else(|| Problem::malformed("The Host header is missing."))?;
    // The colons of an IPv6 address do not count.
    let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    Ok(Some(match port {
        443 => format!("https://{name}{target}"),
        port => format!("https://{name}:{port}{target}"),
    }))
}

/// `Strict-Transport-Security`.
pub fn hsts(table: &Table) -> Option<HeaderValue> {
    HeaderValue::try_from(table.config.tls.as_ref()?.hsts.as_ref()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::ServiceLimits;
    use actix_web::http::header;
    use actix_web::test::TestRequest;
    use shared::balancer::{Pool, Settings};
    use std::time::Instant;

    fn redirected(request: TestRequest, port: u16) -> Option<String> {
        let text = format!(
            "trusted_proxies = [\"10.0.0.0/8\"]\n[tls]\nport = 8443\nredirect_port = {port}\ncertificates = []\n[[routes]]\nid = \"a\"\nprefix = \"/a\"\nservice = \"a\"\n"
        );
        let limits = Arc::new(ServiceLimits::new(Instant::now()));
        let table = Table::read(&text, |service| Pool::new(service, Settings::default()), |_| limits.clone())
            .unwrap();
        redirect(&request.to_http_request(), &table).unwrap()
    }

    #[test]
    fn a_redirect_keeps_host_path_and_query_and_has_the_port_unless_it_is_443() {
        for (host, target, port, wanted) in [
            ("shop.example", "/a?b=c", 443, "https://shop.example/a?b=c"),
            ("shop.example:8080", "/", 8443, "https://shop.example:8443/"),
            ("[::1]", "/a", 443, "https://[::1]/a"),
            ("[::1]:8080", "/a", 8443, "https://[::1]:8443/a"),
        ] {
            let request = TestRequest::with_uri(target).insert_header((header::HOST, host));
            assert_eq!(redirected(request, port).as_deref(), Some(wanted), "{host}");
        }
    }

    #[test]
    fn a_request_that_a_trusted_proxy_had_with_tls_is_not_redirected() {
        for (peer, proto, is_redirected) in [
            ("10.0.0.1:1", "https", false),
            ("[::ffff:10.0.0.1]:1", "https", false),
            ("10.0.0.1:1", "http", true),
            ("192.0.2.1:1", "https", true),
        ] {
            let request = TestRequest::default().peer_addr(peer.parse().unwrap());
            let request = request.insert_header((header::HOST, "shop.example"));
            let request = request.insert_header((header::X_FORWARDED_PROTO, proto));
            assert_eq!(redirected(request, 443).is_some(), is_redirected, "{peer} {proto}");
        }
    }
}
