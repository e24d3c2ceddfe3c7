//! What every page must fulfil: contrast, names for readers of the screen, windows of every width, and the rules of
//! axe-core (<https://github.com/dequelabs/axe-core>).

use serde_json::json;
use shared::testing::skip;

use crate::Browser;

/// Every text that is shown, with its contrast to what is behind it, if that is below 4.5.
const FAINT: &str = r#"
const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (one) => {
  for (; one; one = one.parentElement) {
    const [r, g, b, a = 1] = channels(getComputedStyle(one).backgroundColor);
    if (a > 0) return [r, g, b];
  }
  return [255, 255, 255];
};
const colour = (one) => getComputedStyle(one)[one instanceof SVGElement ? 'fill' : 'color'];
return [...document.querySelectorAll('body *')]
  .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
  .filter((one) => one.tagName !== 'title' && one.checkVisibility({ opacityProperty: true }) && !one.closest('.unseen, .skip, noscript, :disabled'))
  .map((one) => {
    const [a, b] = [light(channels(colour(one))), light(behind(one))];
    return { ratio: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text: one.textContent.trim().slice(0, 40), tag: one.tagName };
  })
  .filter(({ ratio }) => ratio < 4.5);
"#;

/// What a reader of the screen has no name for.
const NAMELESS: &str = r#"
return [...document.querySelectorAll('a, button, input, select, [role=region], [role=img]')]
  .filter((one) => !(one.labels?.length || one.textContent.trim() || one.getAttribute('aria-label') || one.getAttribute('aria-labelledby')))
  .map((one) => one.outerHTML);
"#;

/// What makes the page wider than the window.
const WIDE: &str = r#"
const width = document.documentElement.clientWidth;
return document.documentElement.scrollWidth <= width ? [] : [...document.querySelectorAll('body *')]
  .filter((one) => one.getBoundingClientRect().right > width && !one.closest('.scrolls')).map((one) => one.outerHTML.slice(0, 90));
"#;

/// The violations that axe-core calls serious or critical. It must have been loaded.
const AXE: &str = r#"
const done = arguments[arguments.length - 1];
axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => done(violations
  .filter(({ impact }) => ['serious', 'critical'].includes(impact))
  .map(({ id, nodes }) => [id, ...nodes.map(({ html, failureSummary }) => `${html.slice(0, 120)}: ${failureSummary}`)])))
  .catch((why) => done(String(why)));
"#;

/// Checks the page that the browser shows, in windows of three widths. `name` is for messages and pictures. The variable
/// `AXE_SCRIPT` is the path of `axe.min.js`. Without it, axe-core's rules are not checked.
///
/// # Panics
/// When something on the page is faint, without a name or too wide, or breaks a rule of axe-core.
pub async fn check_looks(browser: &Browser, name: &str) {
    for (width, height) in [(1280, 900), (360, 740), (2560, 1200)] {
        browser.resize(width, height).await;
        for (what, script) in [("faint", FAINT), ("without a name", NAMELESS), ("too wide", WIDE)] {
            assert_eq!(browser.run(script).await, json!([]), "{name}, {width} px: {what}");
        }
        browser.picture(&format!("{name}-{width}")).await;
    }
    browser.resize(1280, 900).await;
    if let Some(axe) = axe() {
        browser.run(&axe).await;
        assert_eq!(browser.run_async(AXE).await, json!([]), "{name}");
    }
}

fn axe() -> Option<String> {
    let Some(path) = std::env::var_os("AXE_SCRIPT").filter(|path| !path.is_empty()) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "AXE_SCRIPT is not set");
        skip("without axe-core: AXE_SCRIPT is not set");
        return None;
    };
    Some(std::fs::read_to_string(path).unwrap_or_else(|why| panic!("AXE_SCRIPT cannot be read: {why}")))
}
