//! Names under which this program may be asked. A page of another site can let its own name lead to this machine (DNS
//! rebinding). The browser then takes the console for that site, so requests for an unknown name are refused.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::HOST;
use actix_web::web::Data;

use crate::error::Error;

/// The names in `CONSOLE_HOSTS`.
#[derive(Debug, Clone)]
pub struct Hosts(pub Vec<String>);

/// 403 unless the request is for an address, `localhost`, a name without dots (as in docker compose), or a name in
/// [`Hosts`]. None of the first three can belong to another site.
pub fn check(request: &HttpRequest) -> Result<(), Error> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let known = request.app_data::<Data<Hosts>>();
    match is_own(host, known.map_or(&[], |hosts| &hosts.0)) {
        true => Ok(()),
        false => Err(Error::NotSameOrigin),
    }
}

fn is_own(host: &str, known: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_local = !name.contains('.') && !name.is_empty() || name.ends_with(".localhost");
    address.is_ok() || is_local || known.iter().any(|known| known.eq_ignore_ascii_case(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_another_site_could_own_is_refused() {
        let known = ["console.example.com".to_owned()];
        for own in [
            "127.0.0.1:3051",
            "[::1]:3051",
            "localhost",
            "console:4318",
            "a.localhost:1",
            "Console.Example.com",
        ] {
            assert!(is_own(own, &known), "{own}");
        }
        for other in
            ["evil.example", "evil.example:3051", "127.0.0.1.evil.example", "", ":3051", "example.com:3051"]
        {
            assert!(!is_own(other, &known), "{other}");
        }
    }
}
