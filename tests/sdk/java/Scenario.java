import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.example.kero.ApiClient;
import org.example.kero.ApiException;
import org.example.kero.api.InstancesApi;
import org.example.kero.api.JobsApi;
import org.example.kero.api.MessagesApi;
import org.example.kero.api.PairingApi;
import org.example.kero.api.WebhookApi;
import org.example.kero.model.AckStatus;
import org.example.kero.model.CreateInstance;
import org.example.kero.model.InstanceStatus;
import org.example.kero.model.MessageAckEvent;
import org.example.kero.model.Problem;
import org.example.kero.model.PutWebhook;
import org.example.kero.model.SendResult;
import org.example.kero.model.SendStatus;
import org.example.kero.model.SendText;

/**
 * The main job with the generated client: create, pair, send, send asynchronously, receive the acknowledgement by
 * webhook, read jobs page by page, handle a problem.
 */
public class Scenario {
    static final String SECRET = "a secret of this program";
    static final String ID = "java";
    static final String CONTACT = "491514000401";
    static final ApiClient CLIENT = new ApiClient();
    static final Map<String, MessageAckEvent> ACKS = new ConcurrentHashMap<>();

    static void check(boolean holds, Object what) {
        if (!holds) throw new AssertionError(String.valueOf(what));
    }

    static <T> T until(String what, Callable<T> ask) throws Exception {
        for (long end = System.nanoTime() + 30_000_000_000L; System.nanoTime() < end; Thread.sleep(50)) {
            T found = ask.call();
            if (found != null) return found;
        }
        throw new AssertionError("waited too long for " + what);
    }

    static void simulator(String path, String body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("SIMULATOR_URL") + path))
            .POST(HttpRequest.BodyPublishers.ofString(body)).build();
        check(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).statusCode() < 300, path);
    }

    interface Call {
        void run() throws ApiException;
    }

    /** The code of the problem that a call ends in. */
    static String code(Call call) throws Exception {
        try {
            call.run();
        } catch (ApiException failure) {
            Problem problem = CLIENT.getObjectMapper().readValue(failure.getResponseBody(), Problem.class);
            check(problem.getStatus() == failure.getCode(), problem);
            return problem.getCode();
        }
        throw new AssertionError("it went well");
    }

    static HttpServer sink() throws Exception {
        HttpServer sink = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        sink.createContext("/", exchange -> {
            int status = 401;
            try {
                byte[] body = exchange.getRequestBody().readAllBytes();
                Mac mac = Mac.getInstance("HmacSHA256");
                mac.init(new SecretKeySpec(SECRET.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
                String given = exchange.getRequestHeaders().getFirst("X-Webhook-Signature");
                if (MessageDigest.isEqual(mac.doFinal(body), HexFormat.of().parseHex(given))) {
                    MessageAckEvent ack = CLIENT.getObjectMapper().readValue(body, MessageAckEvent.class);
                    ACKS.put(ack.getData().getCorrelationId(), ack);
                    status = 204;
                }
            } catch (Exception error) {
                error.printStackTrace();
            }
            exchange.sendResponseHeaders(status, -1);
            exchange.close();
        });
        sink.start();
        return sink;
    }

    public static void main(String[] arguments) throws Exception {
        HttpServer sink = sink();
        simulator("/admin/people", "{\"phone\":\"" + CONTACT + "\",\"name\":\"Ada\"}");
        CLIENT.updateBaseUri(System.getenv("KERO_URL"));
        CLIENT.setRequestInterceptor(request -> request.header("X-API-Key", System.getenv("KERO_KEY")));
        InstancesApi instances = new InstancesApi(CLIENT);
        MessagesApi messages = new MessagesApi(CLIENT);
        JobsApi jobs = new JobsApi(CLIENT);

        // create
        var created = instances.instanceCreate(new CreateInstance().instanceId(ID).name("SDK"));
        check(created.getData().getStatus() == InstanceStatus.DISCONNECTED, created);
        String url = "http://127.0.0.1:" + sink.getAddress().getPort() + "/";
        PutWebhook webhook = new PutWebhook().url(URI.create(url)).secret(SECRET)
            .addEventsItem(PutWebhook.EventsEnum.MESSAGE_ACK);
        new WebhookApi(CLIENT).webhookUpdate(ID, webhook);

        // provoke a problem and read its code
        check(code(() -> instances.instanceCreate(new CreateInstance().instanceId(ID))).equals("instance-exists"), "twice");
        SendText early = new SendText().phone(CONTACT).message("too early");
        check(code(() -> messages.messageSendText(ID, early, null, null, null)).startsWith("instance-not-"), "early");

        // pair
        instances.instanceConnect(ID);
        String qr = new PairingApi(CLIENT).qrGet(ID).getCode();
        simulator("/admin/mock-phone/scan-qr?phone=491514000400", qr);
        until("the connection",
            () -> instances.instanceStatusGet(ID).getStatus() == InstanceStatus.CONNECTED ? true : null);

        // send, and send asynchronously
        SendText hello = new SendText().phone(CONTACT).message("Hello");
        check(messages.messageSendText(ID, hello, null, null, null).getStatus() == SendStatus.SENT, "sent");
        List<SendResult> queued = new ArrayList<>();
        for (int n = 0; n < 5; n++) {
            SendText text = new SendText().phone(CONTACT).message("Number " + n);
            var answer = messages.messageSendTextWithHttpInfo(ID, text, "true", "java-" + n, "java-" + n);
            check(answer.getStatusCode() == 202, answer.getStatusCode());
            queued.add(answer.getData());
        }

        // each ends in one acknowledgement, by webhook
        for (SendResult result : queued) {
            MessageAckEvent ack = until("an acknowledgement", () -> ACKS.get(result.getCorrelationId()));
            check(ack.getData().getStatus() == AckStatus.SENT, ack);
            check(ack.getData().getMessageId().equals(result.getMessageId()), ack);
        }

        // jobs, page by page
        HashSet<Object> seen = new HashSet<>();
        int pages = 0;
        String cursor = null;
        do {
            var page = jobs.jobList(ID, null, 2L, cursor);
            page.getData().forEach(job -> seen.add(job.getId()));
            cursor = page.getNextCursor();
            pages++;
        } while (cursor != null);
        check(seen.size() == 6 && pages >= 3, seen);
        check(jobs.jobGet(ID, "java-0").getData().getType().equals("text"), "type");
        check(code(() -> jobs.jobGet(ID, "nobody")).equals("job-not-found"), "nobody");

        instances.instanceDelete(ID);
        sink.stop(0);
        System.out.printf("java: 6 messages sent, %d acknowledgements verified, %d pages of jobs%n", ACKS.size(), pages);
        System.exit(0);
    }
}
