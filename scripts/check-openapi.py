"""Places an order with the client that openapi-generator has generated. scripts/check-openapi runs this program."""

import sys
import uuid

import shop

gateway = shop.ApiClient(shop.Configuration(host=sys.argv[1]))
email, password = f"{uuid.uuid4()}@example.com", "a long enough one"
shop.UsersApi(gateway).register_user(register=shop.Register(email=email, name="Ann", password=password))
tokens = shop.SessionsApi(gateway).log_in(log_in=shop.LogIn(email=email, password=password))
gateway.configuration.access_token = tokens.access_token
product = next(product for product in shop.ProductsApi(gateway).list_products().products if product.available > 0)
order = shop.OrdersApi(gateway).place_order(
    idempotency_key=str(uuid.uuid4()),
    place_order=shop.PlaceOrder(
        lines=[shop.PlaceOrderLine(product_id=product.id, quantity=1)], payment_token="tok_visa"
    ),
    prefer="wait=10",
)
assert order.status == "confirmed", order
print(f"A generated client has placed order {order.id}: {order.status}.")
