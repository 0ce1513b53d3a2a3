import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.zip.CRC32;

/**
 * Feature values as streamml stores them in Redis (docs/reference/redis-layout.md): encodes and decodes them, and makes keys. Take it
 * into your job; the Redis client is yours to choose. A streaming set is written by the script that the page names.
 */
public final class Features {
    private static final int LOADED = 0x314C4D53; // "SML1", little-endian
    private static final int STREAMING = 0x324C4D53; // "SML2"

    /** One column: a type, and how many items of it lie in a row. */
    private static final class Column {
        final String kind;
        final int items;

        Column(String line) {
            String type = line.substring(line.lastIndexOf(':') + 1);
            int bracket = type.indexOf('[');
            kind = bracket < 0 ? type : type.substring(0, bracket);
            int product = 1;
            if (bracket >= 0) {
                for (String size : type.substring(bracket + 1, type.length() - 1).split(",")) {
                    product *= Integer.parseInt(size.trim());
                }
            }
            items = product;
        }

        int itemSize() {
            switch (kind) {
                case "bool":
                    return 1;
                case "i4":
                case "f4":
                    return 4;
                default:
                    return 8;
            }
        }
    }

    /** A decoded value. Each column is an array of its items: Boolean, Integer, Long, Float or Double; a timestamp is Long. */
    public static final class Value {
        public long eventTimeMicros;
        public long writeTimeMicros;
        public int writer;
        public Object[][] columns;
    }

    private final boolean streaming;
    private final int schemaHash;
    private final Column[] columns;
    private final int size;

    /** @param lines the columns as name:type in declared order, such as "mean_delay:f4", "embedding:f4[3]" */
    public Features(boolean streaming, String... lines) {
        this.streaming = streaming;
        schemaHash = crc(String.join("\n", lines));
        columns = new Column[lines.length];
        int end = header();
        for (int index = 0; index < lines.length; index++) {
            columns[index] = new Column(lines[index]);
            end = roundedUp(end, columns[index].itemSize()) + columns[index].itemSize() * columns[index].items;
        }
        size = roundedUp(end, 8);
    }

    /** The version of a streaming set with this schema. */
    public String liveVersion() {
        return String.format("live-%08x", schemaHash);
    }

    /** Where the value of an entity is. */
    public static byte[] key(String set, String version, byte[]... parts) {
        ByteArrayOutputStream key = new ByteArrayOutputStream();
        key.writeBytes(("streamml:" + set + ":" + version + ":").getBytes(StandardCharsets.UTF_8));
        for (byte[] part : parts) {
            key.writeBytes((part.length + ":").getBytes(StandardCharsets.UTF_8));
            key.writeBytes(part);
        }
        return key.toByteArray();
    }

    /** The number that stands in a value for the name of its writer. */
    public static int crc(String text) {
        CRC32 crc = new CRC32();
        crc.update(text.getBytes(StandardCharsets.UTF_8));
        return (int) crc.getValue();
    }

    public byte[] encode(Value value) {
        ByteBuffer bytes = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN);
        bytes.putInt(streaming ? STREAMING : LOADED).putInt(schemaHash);
        bytes.putLong(value.eventTimeMicros).putLong(value.writeTimeMicros);
        if (streaming) {
            bytes.putInt(value.writer);
        }
        bytes.position(header());
        for (int index = 0; index < columns.length; index++) {
            bytes.position(roundedUp(bytes.position(), columns[index].itemSize()));
            for (Object item : value.columns[index]) {
                put(bytes, columns[index].kind, item);
            }
        }
        return bytes.array();
    }

    /** @return null: these bytes are of another format or schema, and count as no value */
    public Value decode(byte[] stored) {
        ByteBuffer bytes = ByteBuffer.wrap(stored).order(ByteOrder.LITTLE_ENDIAN);
        if (stored.length != size || bytes.getInt() != (streaming ? STREAMING : LOADED) || bytes.getInt() != schemaHash) {
            return null;
        }
        Value value = new Value();
        value.eventTimeMicros = bytes.getLong();
        value.writeTimeMicros = bytes.getLong();
        value.writer = streaming ? bytes.getInt() : 0;
        value.columns = new Object[columns.length][];
        bytes.position(header());
        for (int index = 0; index < columns.length; index++) {
            bytes.position(roundedUp(bytes.position(), columns[index].itemSize()));
            value.columns[index] = new Object[columns[index].items];
            for (int item = 0; item < columns[index].items; item++) {
                value.columns[index][item] = get(bytes, columns[index].kind);
            }
        }
        return value;
    }

    private int header() {
        return streaming ? 32 : 24;
    }

    private static int roundedUp(int offset, int to) {
        return (offset + to - 1) / to * to;
    }

    private static void put(ByteBuffer bytes, String kind, Object item) {
        switch (kind) {
            case "bool":
                bytes.put((byte) ((Boolean) item ? 1 : 0));
                break;
            case "i4":
                bytes.putInt((Integer) item);
                break;
            case "f4":
                bytes.putFloat((Float) item);
                break;
            case "f8":
                bytes.putDouble((Double) item);
                break;
            default:
                bytes.putLong((Long) item);
        }
    }

    private static Object get(ByteBuffer bytes, String kind) {
        switch (kind) {
            case "bool":
                return bytes.get() != 0;
            case "i4":
                return bytes.getInt();
            case "f4":
                return bytes.getFloat();
            case "f8":
                return bytes.getDouble();
            default:
                return bytes.getLong();
        }
    }

    /** For tests: reads values in hexadecimal digits, tells what they hold, and writes them again. */
    public static void main(String[] arguments) throws Exception {
        String[] lines = java.util.Arrays.copyOfRange(arguments, 1, arguments.length);
        Features features = new Features(arguments[0].equals("streaming"), lines);
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            Value value = features.decode(bytes(line));
            if (value == null) {
                System.out.println("none");
                continue;
            }
            List<String> told = new ArrayList<>();
            told.add(Long.toString(value.eventTimeMicros));
            told.add(Long.toString(value.writeTimeMicros));
            told.add(Integer.toUnsignedString(value.writer));
            for (Object[] column : value.columns) {
                for (Object item : column) {
                    told.add(item.toString());
                }
            }
            System.out.println(String.join(" ", told) + "\t" + hex(features.encode(value)));
        }
    }

    private static byte[] bytes(String hex) {
        byte[] found = new byte[hex.length() / 2];
        for (int index = 0; index < found.length; index++) {
            found[index] = (byte) Integer.parseInt(hex.substring(2 * index, 2 * index + 2), 16);
        }
        return found;
    }

    private static String hex(byte[] bytes) {
        StringBuilder found = new StringBuilder();
        for (byte one : bytes) {
            found.append(String.format("%02x", one));
        }
        return found.toString();
    }
}
