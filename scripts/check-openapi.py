"""Places an order with the client that openapi-generator has made; called by scripts/check-openapi."""

import sys
import uuid

import shop

gateway = shop.ApiClient(shop.Configuration(host=sys.argv[1]))


def methods(words):
    """The methods of the client's classes whose names have all the words, shortest first."""
    found = []
    for name in dir(shop):
        if name.endswith("Api"):
            api = getattr(shop, name)(gateway)
            found += [getattr(api, method) for method in dir(api) if all(word in method for word in words)]
    return sorted(found, key=lambda method: len(method.__name__))


def call(words, *body, **headers):
    return methods(words)[0](*body, **headers)


email = f"{uuid.uuid4()}@example.com"
call(["register"], shop.RegisterUser(email=email, name="Ann", password="a long enough one"))
tokens = call(["log_in"], shop.LogIn(email=email, password="a long enough one"))
gateway.configuration.access_token = tokens.access_token
product = next(product for product in call(["list_products"]).products if product.available > 0)
order = call(
    ["place_order"],
    str(uuid.uuid4()),
    shop.PlaceOrder(lines=[shop.NewLine(product_id=product.id, quantity=1)], payment_token="tok_visa"),
    prefer="wait=10",
)
assert order.status == "confirmed", order
print(f"A generated client has placed order {order.id}: {order.status}.")
