import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.UUID;
import java.util.regex.Pattern;

/** Java's HttpClient with its defaults: it asks for HTTP/2 with an upgrade, also in a request with a body. */
class Client {
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    static HttpRequest.Builder to(String path) {
        return HttpRequest.newBuilder(URI.create(System.getenv("BASE") + path))
            .header("Authorization", "Bearer " + System.getenv("TOKEN"))
            .timeout(Duration.ofSeconds(20));
    }

    static void check(boolean holds, Object seen) {
        if (!holds) throw new AssertionError(seen);
    }

    static String id(String json) {
        var found = Pattern.compile("\"id\":\"([^\"]+)\"").matcher(json);
        check(found.find(), json);
        return found.group(1);
    }

    static void checkProblem(HttpResponse<String> answer) {
        check(answer.statusCode() == 404 && answer.body().contains("\"code\":\"not_found\""), answer.body());
        var type = answer.headers().firstValue("Content-Type");
        check(type.orElse("").equals("application/problem+json"), type);
    }

    public static void main(String[] arguments) throws Exception {
        var products = CLIENT.send(to("/api/products").build(), BodyHandlers.ofString());
        check(products.statusCode() == 200 && products.body().contains("\"products\":[{"), products.body());

        var order = "{\"lines\":[{\"product_id\":\"" + System.getenv("PRODUCT")
            + "\",\"quantity\":1}],\"payment_token\":\"tok_visa\"}";
        var place = to("/api/orders").header("Content-Type", "application/json")
            .header("Idempotency-Key", UUID.randomUUID().toString()).POST(BodyPublishers.ofString(order)).build();
        var first = CLIENT.send(place, BodyHandlers.ofString());
        var again = CLIENT.send(place, BodyHandlers.ofString());
        check(first.statusCode() == 201 && again.statusCode() == 201, again.body());
        check(id(first.body()).equals(id(again.body())), again.body());

        var events = CLIENT.send(to("/api/orders/" + id(first.body()) + "/events").build(), BodyHandlers.ofLines());
        check(events.body().anyMatch("event: order.confirmed"::equals), "the stream has ended");

        var head = to("/api/products").method("HEAD", BodyPublishers.noBody()).build();
        var headers = CLIENT.send(head, BodyHandlers.ofString());
        check(headers.statusCode() == 200 && headers.body().isEmpty(), headers);

        checkProblem(CLIENT.send(to("/api/nothing").build(), BodyHandlers.ofString()));
        // The client keeps the connection of the event stream; nothing else is to be waited for.
        System.exit(0);
    }
}
