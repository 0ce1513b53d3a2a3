import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * What a consumer of predictions keeps, so that corrections count and duplicates and late ones do not. Take one of the two
 * classes into your code. The order in which records arrive does not matter.
 */
public final class Latest {
    private Latest() {}

    /** One record of the prediction topic. {@code timeMs} is its timestamp: the source record's. */
    public static final class Prediction {
        public final String id;
        public final long revision;
        public final String key;
        public final long timeMs;
        public final byte[] value;

        /** A record with the header {@code streamml}: {@code 1;id;model@version;revision;flags}. */
        public Prediction(ConsumerRecord<byte[], byte[]> record) {
            Header header = record.headers().lastHeader("streamml");
            String[] parts = header == null ? new String[0] : text(header.value()).split(";", 5);
            if (parts.length != 5 || !parts[0].equals("1")) {
                throw new IllegalArgumentException("The record has no header `streamml` of version 1.");
            }
            id = parts[1];
            revision = Long.parseLong(parts[3]);
            key = record.key() == null ? null : text(record.key());
            timeMs = record.timestamp();
            value = record.value();
        }
    }

    /** Keeps each prediction by id, in its highest revision: 0 is live, a replay writes its number. */
    public static final class HighestRevision {
        public final Map<String, Prediction> kept = new HashMap<>();

        /** Whether it is news; an equal revision is a duplicate. */
        public boolean take(Prediction one) {
            Prediction known = kept.get(one.id);
            if (known != null && known.revision >= one.revision) {
                return false;
            }
            kept.put(one.id, one);
            return true;
        }
    }

    /**
     * Keeps of each key the newest prediction by source time, and that one in its highest revision. Of two records with one
     * time the later in its partition is the newer: a correction replaces what it corrects, and whatever is older, and
     * nothing else.
     */
    public static final class LatestPerKey {
        public final Map<String, Prediction> kept = new HashMap<>();

        /** Whether it is news. */
        public boolean take(Prediction one) {
            Prediction known = kept.get(one.key);
            if (known != null && compare(known, one) >= 0) {
                return false;
            }
            kept.put(one.key, one);
            return true;
        }

        private static int compare(Prediction one, Prediction two) {
            long[] ours = rank(one);
            long[] theirs = rank(two);
            for (int at = 0; at < ours.length; at++) {
                if (ours[at] != theirs[at]) {
                    return Long.compare(ours[at], theirs[at]);
                }
            }
            return 0;
        }

        /** Time, then the place that the id names (topic/partition/offset, #i for a child), then the revision. */
        private static long[] rank(Prediction one) {
            String[] record = one.id.split("#", 2);
            int offset = record[0].lastIndexOf('/');
            int partition = record[0].lastIndexOf('/', offset - 1);
            return new long[] {
                one.timeMs,
                Long.parseLong(record[0].substring(offset + 1)),
                Long.parseLong(record[0].substring(partition + 1, offset)),
                record.length == 2 ? Long.parseLong(record[1]) : -1,
                one.revision
            };
        }
    }

    /** Reads a topic to its end and prints what both keep: {@code id|key, name, revision, value}, separated by tabs. */
    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("isolation.level", "read_committed");
        HighestRevision byId = new HighestRevision();
        LatestPerKey byKey = new LatestPerKey();
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, bytes, bytes)) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (PartitionInfo one : consumer.partitionsFor(arguments[1])) {
                partitions.add(new TopicPartition(one.topic(), one.partition()));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (ends.entrySet().stream().anyMatch(one -> consumer.position(one.getKey()) < one.getValue())) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    Prediction one = new Prediction(record);
                    byId.take(one);
                    byKey.take(one);
                }
            }
        }
        byId.kept.forEach((name, one) -> print("id", name, one));
        byKey.kept.forEach((name, one) -> print("key", name, one));
    }

    private static void print(String what, String name, Prediction one) {
        System.out.println(String.join("\t", what, name, Long.toString(one.revision), text(one.value)));
    }

    private static String text(byte[] data) {
        return new String(data, StandardCharsets.UTF_8);
    }
}
