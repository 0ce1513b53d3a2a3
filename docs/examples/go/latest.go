// Reads the latest prediction of a key, as a worker keeps it in Redis (docs/reference/redis-latest.md). Take what you need into your
// service; the Redis client is yours to choose: GET Key, then Decode. As a program it tells what stored predictions in
// hexadecimal digits hold, for tests.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
)

const header = 40

// Latest is the latest prediction of a key.
type Latest struct {
	Value            []byte // as in the prediction topic; nil: the prediction is a tombstone
	ID, Model, Flags string
	Revision         uint32 // 0 is live, a replay writes its number
	EventTimeMicros  int64
}

// Key says where the prediction of a key is; name is the RedisSink's.
func Key(name, key string) string {
	return "streamml.latest:" + name + ":" + strconv.Itoa(len(key)) + ":" + key
}

// Decode reads what is stored; false: these bytes are no prediction of this format.
func Decode(stored []byte) (Latest, bool) {
	if len(stored) < header || string(stored[:4]) != "SMP1" {
		return Latest{}, false
	}
	length := uint64(binary.LittleEndian.Uint32(stored[32:]))
	if length > uint64(len(stored)-header) {
		return Latest{}, false
	}
	provenance := strings.SplitN(string(stored[header:header+length]), ";", 5)
	if len(provenance) != 5 || provenance[0] != "1" {
		return Latest{}, false
	}
	found := Latest{
		ID:              provenance[1],
		Model:           provenance[2],
		Flags:           provenance[4],
		Revision:        binary.LittleEndian.Uint32(stored[4:]),
		EventTimeMicros: int64(binary.LittleEndian.Uint64(stored[8:])),
	}
	if binary.LittleEndian.Uint32(stored[36:]) != 1 {
		found.Value = stored[header+length:]
	}
	return found, true
}

func main() {
	fmt.Printf("%x\n", Key(os.Args[1], os.Args[2]))
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		stored, err := hex.DecodeString(lines.Text())
		one, present := Decode(stored)
		if err != nil || !present {
			fmt.Println("refused")
			continue
		}
		value := "none"
		if one.Value != nil {
			value = hex.EncodeToString(one.Value)
		}
		fmt.Printf("%x\t%x\t%d\t%x\t%d\t%s\n", one.ID, one.Model, one.Revision, one.Flags, one.EventTimeMicros, value)
	}
}
