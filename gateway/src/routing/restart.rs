//! Keys of `gateway.toml` that are read only at the start. A reload that changes one is refused: a file that is not in
//! force must not look as if it were.

use serde_json::Value;

use super::{GatewayConfig, place};

/// As JSON pointers. `post_rate_per_second` of a route is one more.
const KEYS: [&str; 13] = [
    "/rate_per_second",
    "/rate_burst",
    "/token_rate_per_second",
    "/connections_per_client",
    "/streams_per_person",
    "/streams_per_client",
    "/waits_per_person",
    "/waits_per_client",
    "/uploads_per_client",
    "/kept_bodies_mib",
    "/cache_mib",
    "/oidc",
    "/tls/port",
];

impl GatewayConfig {
    /// Checks that these keys are as `at_start`. An error names the line and the column in `text`. A route may go, and
    /// come back with the same rate.
    pub fn check_unchanged(&self, at_start: &Self, text: &str) -> Result<(), String> {
        let (now, then) = (json(self), json(at_start));
        let changed = KEYS.iter().find(|key| now.pointer(key) != then.pointer(key));
        let changed = changed.map(|key| key.split('/').skip(1).map(str::to_owned).collect());
        let path: Option<Vec<String>> = changed.or_else(|| self.changed_post_rate(at_start));
        match path {
            Some(path) => Err(place::describe_invalid_value(text, &path, "changes only at a restart")),
            None => Ok(()),
        }
    }

    fn changed_post_rate(&self, at_start: &Self) -> Option<Vec<String>> {
        let rate_at_start = |prefix: &str| {
            let mut routes = at_start.routes.iter();
            routes.find(|route| route.prefix == prefix).and_then(|route| route.post_rate_per_second)
        };
        let mut routes = self.routes.iter();
        let index = routes.position(|route| route.post_rate_per_second != rate_at_start(&route.prefix))?;
        Some(vec!["routes".to_owned(), index.to_string(), "post_rate_per_second".to_owned()])
    }
}

fn json(config: &GatewayConfig) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "[[routes]]\nid = \"a\"\nprefix = \"/a\"\nservice = \"a\"\n";

    /// What a reload of `new` says in a gateway that has started with `old`.
    fn reloaded(old: &str, new: &str) -> Result<(), String> {
        let at_start = GatewayConfig::parse(old).unwrap();
        GatewayConfig::parse(new).unwrap().check_unchanged(&at_start, new)
    }

    #[test]
    fn a_key_of_the_start_that_a_reload_changes_is_named() {
        for key in [
            "rate_per_second",
            "rate_burst",
            "token_rate_per_second",
            "connections_per_client",
            "streams_per_person",
            "streams_per_client",
            "waits_per_person",
            "waits_per_client",
            "uploads_per_client",
            "kept_bodies_mib",
            "cache_mib",
        ] {
            let why = reloaded(ROUTE, &format!("{key} = 7\n{ROUTE}")).unwrap_err();
            assert_eq!(why, format!("line 1, column 1: {key}: changes only at a restart"));
        }
        let oidc = |audience: &str| {
            format!("[oidc]\nissuer = \"i\"\naudience = \"{audience}\"\njwks_url = \"https://a/\"\n{ROUTE}")
        };
        let tls = |port: u16| format!("[tls]\nport = {port}\ncertificates = []\n{ROUTE}");
        let limited = |rate: u32| format!("{ROUTE}post_rate_per_second = {rate}\n");
        for (old, new, place) in [
            (ROUTE, oidc("a").as_str(), "line 1, column 2: oidc: "),
            (&oidc("a"), &oidc("b"), "line 1, column 2: oidc: "),
            (&oidc("a"), ROUTE, "line 1, column 1: oidc: "),
            (ROUTE, &tls(1), "line 2, column 1: tls.port: "),
            (&tls(1), &tls(2), "line 2, column 1: tls.port: "),
            (ROUTE, &limited(1), "line 5, column 1: routes.0.post_rate_per_second: "),
            (&limited(1), &limited(2), "line 5, column 1: routes.0.post_rate_per_second: "),
            (&limited(1), ROUTE, "line 1, column "),
        ] {
            let why = reloaded(old, new).unwrap_err();
            assert!(why.starts_with(place) && why.ends_with("changes only at a restart"), "{why}");
        }
    }

    #[test]
    fn all_other_keys_may_change() {
        let limited = format!("{ROUTE}post_rate_per_second = 1\n");
        let other = ROUTE.replace("a\"", "b\"");
        for (old, new) in [
            (ROUTE, format!("strip_headers = [\"x\"]\ntrusted_proxies = [\"10.0.0.0/8\"]\n{ROUTE}")),
            (ROUTE, format!("{ROUTE}cache = true\nhead_timeout_s = 7\n{other}")),
            (&limited, other.clone()),
            (&format!("rate_burst = 400\n{ROUTE}"), ROUTE.to_owned()),
        ] {
            assert_eq!(reloaded(old, &new), Ok(()), "{new}");
        }
    }
}
