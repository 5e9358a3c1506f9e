import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/** The job of `benchmarks/peers/job.py`, exactly once: decayed counts per person and type, a decision for each add. */
public final class Job {
  private static final double HALF_LIFE_S = 86_400.0;
  private static final Map<String, Integer> KINDS = Map.of(
      "Product Viewed", 0, "Product Added", 1, "Product List Viewed", 2, "Cart Viewed", 3, "Checkout Started", 4,
      "Order Completed", 5);
  private static final int OTHER = 6;

  private static final class Counting implements Processor<byte[], byte[], byte[], byte[]> {
    private final ObjectMapper json = new ObjectMapper();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<String, byte[]> store;

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
      this.store = context.getStateStore("counts");
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      try {
        JsonNode event = json.readTree(record.value());
        String person = event.get("userId").asText();
        double atS = Instant.parse(event.get("timestamp").asText()).toEpochMilli() / 1e3;
        double[] counts = decoded(store.get(person));
        double reference = Math.max(counts[0], atS);
        double decay = Math.exp((counts[0] - reference) * Math.log(2) / HALF_LIFE_S);
        for (int i = 1; i < counts.length; i++) {
          counts[i] *= decay;
        }
        int kind = KINDS.getOrDefault(event.get("event").asText(), OTHER);
        counts[1 + kind] += Math.exp((atS - reference) * Math.log(2) / HALF_LIFE_S);
        counts[0] = reference;
        store.put(person, encoded(counts));
        if (kind == 1) {
          ObjectNode decision = json.createObjectNode();
          decision.put("decision_id", event.get("messageId").asText()).put("user_id", person);
          decision.put("campaign", "added").put("channel", "in_app").put("viewed", counts[1]).put("added", counts[2]);
          context.forward(record.withKey(person.getBytes()).withValue(json.writeValueAsBytes(decision)));
        }
      } catch (java.io.IOException malformed) {
        throw new IllegalStateException(malformed);
      }
    }

    private static double[] decoded(byte[] value) {
      double[] counts = new double[2 + OTHER];
      if (value != null) {
        ByteBuffer.wrap(value).asDoubleBuffer().get(counts);
      }
      return counts;
    }

    private static byte[] encoded(double[] counts) {
      ByteBuffer buffer = ByteBuffer.allocate(8 * counts.length);
      buffer.asDoubleBuffer().put(counts);
      return buffer.array();
    }
  }

  public static void main(String[] args) {
    Map<String, String> given = System.getenv();
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, given.get("JOB_GROUP"));
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given.get("JOB_KAFKA"));
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, given.get("JOB_FOLDER"));
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
    settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    Topology topology = new Topology();
    topology.addSource("events", given.get("JOB_EVENTS"));
    topology.addProcessor("count", Counting::new, "events");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(
                Stores.inMemoryKeyValueStore("counts"), Serdes.String(), Serdes.ByteArray())
            .withCachingEnabled(),
        "count");
    topology.addSink("decisions", given.get("JOB_DECISIONS"), "count");
    KafkaStreams streams = new KafkaStreams(topology, settings);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
    streams.start();
  }

  private Job() {}
}
