use actix_web::http::Method;
use shared::testing::Reply;

use crate::harness::{product, start, start_without_orders};

const PAGES: [&str; 3] = ["/", "/shop/orders", "/shop/orders/01890000-0000-7000-8000-000000000000"];

/// A tag without the values of its attributes.
fn bare(tag: &str) -> String {
    tag.split('"').step_by(2).collect()
}

/// Where the parser of HTML would see markup.
fn tags_of(page: &Reply) -> Vec<String> {
    let text = page.text();
    text.split('<').skip(1).filter_map(|rest| rest.split('>').next()).map(str::to_lowercase).collect()
}

#[actix_web::test]
async fn the_shop_shows_its_products_without_a_script() {
    let replica = start().await;
    *replica.stubs.products.lock().unwrap() = vec![product("Green tea", 7), product("Black tea", 0)];
    let page = replica.api.with("accept", "text/html").get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let text = page.text();
    for shown in ["Green tea", "Loose leaves.", "€1,250.00", "7 left", "Sold out", "/shop/pictures/TEA-1"] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    let instance = replica.api.get("/health").await.body["instance"].as_str().unwrap().to_owned();
    assert!(text.contains(&format!("storefront/{instance}")) && text.contains(" ms."), "{text}");
}

#[actix_web::test]
async fn a_search_and_the_next_page_are_addresses_that_need_no_script() {
    let replica = start().await;
    *replica.stubs.products.lock().unwrap() = vec![product("Green tea", 7)];
    let page = replica.api.get("/?q=green%20%26%20%22tea%22").await.text();
    assert!(page.contains("value=\"green &#38; &#34;tea&#34;\""), "{page}");
    assert!(page.contains("href=\"/?q=green%20%26%20%22tea%22&amp;cursor=next%20%26%20more\""), "{page}");
    replica.api.get("/?q=tea&cursor=a%26limit%3D1").await;
    let queries = replica.stubs.queries.lock().unwrap().clone();
    assert_eq!(queries, ["limit=24&q=green%20%26%20%22tea%22", "limit=24&q=tea&cursor=a%26limit%3D1"]);
}

#[actix_web::test]
async fn a_product_that_is_called_like_markup_is_shown_as_text() {
    let replica = start().await;
    let evil = "<img src=x onerror=alert(1)>\"'</h2><script>alert(1)</script>";
    let mut bad = product(evil, 1);
    for field in ["description", "sku", "id"] {
        bad[field] = evil.into();
    }
    *replica.stubs.products.lock().unwrap() = vec![bad];
    for path in [
        "/",
        "/?q=%3Cscript%3Ealert(1)%3C/script%3E%22%20onfocus%3Dalert(1)",
        "/?lang=zh&x=%22%3E%3Cscript%3E",
    ] {
        let page = replica.api.get(path).await;
        let tags = tags_of(&page);
        let bare: Vec<_> = tags.iter().map(|tag| bare(tag)).collect();
        assert!(bare.iter().all(|tag| !tag.contains(" on") && !tag.contains("src=x")), "{bare:?}");
        let scripts: Vec<_> = tags.iter().filter(|tag| tag.starts_with("script")).collect();
        assert_eq!(scripts, ["script type=\"module\" src=\"/shop/assets/shop.js\""]);
        assert!(page.text().contains("&#60;img src=x onerror=alert(1)&#62;"), "{}", page.text());
    }
}

#[actix_web::test]
async fn no_page_runs_anything_inline_or_from_elsewhere_or_in_a_frame() {
    let replica = start().await;
    for path in PAGES {
        let page = replica.api.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let policy = page.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'self';") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("cache-control"), "private, no-cache");
        for tag in tags_of(&page) {
            assert!(!tag.contains(" style=") && !tag.contains(" on"), "{path}: {tag}");
            assert!(!tag.contains("http:") && !tag.contains("https:"), "{path}: {tag}");
        }
    }
    let head = replica.api.send(Method::HEAD, "/", None).await;
    assert_eq!((head.status, head.bytes.len()), (200, 0));
}

#[actix_web::test]
async fn without_order_service_the_page_is_there_and_says_so_with_the_request_id() {
    let replica = start_without_orders().await;
    let page = replica.api.with("x-request-id", "this-one").get("/").await;
    let text = page.text();
    assert_eq!(page.status, 200);
    assert!(text.contains("cannot be shown right now") && text.contains("Request this-one"), "{text}");
}

#[actix_web::test]
async fn a_page_is_in_the_language_that_its_reader_has_chosen_or_else_prefers() {
    let replica = start().await;
    let api = &replica.api;
    let in_language = |page: &Reply| {
        let text = page.text();
        let lang = text.split("<html lang=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        assert_eq!(page.header("content-language"), lang);
        assert_eq!(text.contains("购物车"), lang == "zh-Hans", "{text}");
        lang
    };
    assert_eq!(in_language(&api.get("/").await), "en");
    let chinese = api.with("accept-language", "zh-CN,en;q=0.5");
    assert_eq!(in_language(&chinese.get("/").await), "zh-Hans");
    let chosen = chinese.get("/?q=tea&lang=en").await;
    assert_eq!(in_language(&chosen), "en");
    assert_eq!(chosen.header("set-cookie"), "lang=en; Path=/; Max-Age=31536000; SameSite=Lax");
    assert!(chosen.text().contains("href=\"/?q=tea&#38;lang=zh-Hans\""), "{}", chosen.text());
    let kept = chinese.with("cookie", "a=b; lang=en");
    assert_eq!(in_language(&kept.get("/").await), "en");
    assert_eq!(kept.get("/").await.header("set-cookie"), "");
    assert_eq!(in_language(&api.with("cookie", "lang=xx").get("/?lang=%22").await), "en");
}

#[actix_web::test]
async fn an_order_has_a_page_only_at_a_good_id_and_nothing_of_the_id_is_markup() {
    let replica = start().await;
    replica.api.get("/shop/orders/7").await.expect_problem(404, "not_found");
    replica.api.get("/shop/orders/%22%3E%3Cscript%3E").await.expect_problem(404, "not_found");
    let page = replica.api.get(PAGES[2]).await.text();
    assert!(page.contains("data-order=\"01890000-0000-7000-8000-000000000000\""), "{page}");
}
