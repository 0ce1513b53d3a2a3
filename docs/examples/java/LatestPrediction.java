import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * The latest prediction of a key, as a worker keeps it in Redis (docs/reference/redis-latest.md). Take it into your service; the Redis
 * client is yours to choose: GET {@link #key}, then {@link #decode}.
 */
public final class LatestPrediction {
    private static final int FORMAT = 0x31504D53; // "SMP1", little-endian
    private static final int HEADER = 40;

    /** Of the prediction, as in the topic; null: it is a tombstone. */
    public final byte[] value;
    public final String id;
    /** {@code name@version}; empty where no model had to do with it. */
    public final String model;
    /** 0 is live, a replay writes its number. */
    public final long revision;
    /** What happened to its features. */
    public final String flags;
    public final long eventTimeMicros;

    private LatestPrediction(byte[] value, String[] provenance, long revision, long eventTimeMicros) {
        this.value = value;
        this.id = provenance[1];
        this.model = provenance[2];
        this.revision = revision;
        this.flags = provenance[4];
        this.eventTimeMicros = eventTimeMicros;
    }

    /** Where the prediction of a key is; {@code name} is the RedisSink's. */
    public static byte[] key(String name, byte[] key) {
        ByteArrayOutputStream found = new ByteArrayOutputStream();
        found.writeBytes(("streamml.latest:" + name + ":" + key.length + ":").getBytes(StandardCharsets.UTF_8));
        found.writeBytes(key);
        return found.toByteArray();
    }

    /** @throws IllegalArgumentException these bytes are no prediction of this format */
    public static LatestPrediction decode(byte[] stored) {
        ByteBuffer bytes = ByteBuffer.wrap(stored).order(ByteOrder.LITTLE_ENDIAN);
        if (stored.length < HEADER || bytes.getInt(0) != FORMAT || bytes.getInt(32) < 0 || bytes.getInt(32) > stored.length - HEADER) {
            throw new IllegalArgumentException("This is no prediction of format 1.");
        }
        int end = HEADER + bytes.getInt(32);
        String[] provenance = new String(stored, HEADER, end - HEADER, StandardCharsets.UTF_8).split(";", 5);
        if (provenance.length != 5 || !provenance[0].equals("1")) {
            throw new IllegalArgumentException("Its provenance is not of version 1.");
        }
        byte[] value = bytes.getInt(36) == 1 ? null : Arrays.copyOfRange(stored, end, stored.length);
        return new LatestPrediction(value, provenance, Integer.toUnsignedLong(bytes.getInt(4)), bytes.getLong(8));
    }

    /** For tests: reads stored predictions in hexadecimal digits, and tells what they hold. */
    public static void main(String[] arguments) throws Exception {
        System.out.println(hex(key(arguments[0], arguments[1].getBytes(StandardCharsets.UTF_8))));
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            try {
                LatestPrediction one = decode(bytes(line));
                String value = one.value == null ? "none" : hex(one.value);
                System.out.println(String.join(
                        "\t", hex(one.id), hex(one.model), "" + one.revision, hex(one.flags), "" + one.eventTimeMicros, value));
            } catch (IllegalArgumentException refused) {
                System.out.println("refused");
            }
        }
    }

    private static byte[] bytes(String hex) {
        byte[] found = new byte[hex.length() / 2];
        for (int index = 0; index < found.length; index++) {
            found[index] = (byte) Integer.parseInt(hex.substring(2 * index, 2 * index + 2), 16);
        }
        return found;
    }

    private static String hex(String text) {
        return hex(text.getBytes(StandardCharsets.UTF_8));
    }

    private static String hex(byte[] bytes) {
        StringBuilder found = new StringBuilder();
        for (byte one : bytes) {
            found.append(String.format("%02x", one));
        }
        return found.toString();
    }
}
