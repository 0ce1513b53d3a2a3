// Reads feature values as streamml stores them in Redis (docs/reference/redis-layout.md). Take what you need into your
// service; the Redis client is yours to choose. As a program it tells what values in hexadecimal digits hold, for tests.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"strconv"
	"strings"
)

type column struct {
	kind  string
	items int
}

// Layout is where header and columns of one schema lie in a value.
type Layout struct {
	streaming bool
	hash      uint32
	columns   []column
	size      int
}

// Value is a decoded value. Each column is its items: bool, int32, int64, float32 or float64; a timestamp is int64 microseconds.
type Value struct {
	EventTimeMicros, WriteTimeMicros int64
	Writer                           uint32
	Columns                          [][]any
}

// NewLayout lays out columns given as name:type in declared order, such as "mean_delay:f4", "embedding:f4[3]".
func NewLayout(streaming bool, lines ...string) Layout {
	layout := Layout{streaming: streaming, hash: crc32.ChecksumIEEE([]byte(strings.Join(lines, "\n")))}
	end := layout.header()
	for _, line := range lines {
		kind, shape, _ := strings.Cut(line[strings.LastIndex(line, ":")+1:], "[")
		items := 1
		for _, size := range strings.Split(strings.TrimSuffix(shape, "]"), ",") {
			if number, err := strconv.Atoi(strings.TrimSpace(size)); err == nil {
				items *= number
			}
		}
		one := column{kind, items}
		end = roundedUp(end, one.itemSize()) + one.itemSize()*items
		layout.columns = append(layout.columns, one)
	}
	layout.size = roundedUp(end, 8)
	return layout
}

// LiveVersion is the version of a streaming set with this schema.
func (layout Layout) LiveVersion() string { return fmt.Sprintf("live-%08x", layout.hash) }

// Key says where the value of an entity is.
func Key(set, version string, parts ...string) string {
	key := "streamml:" + set + ":" + version + ":"
	for _, part := range parts {
		key += strconv.Itoa(len(part)) + ":" + part
	}
	return key
}

// Decode reads a value; false: it is of another format or schema, and counts as no value.
func (layout Layout) Decode(stored []byte) (Value, bool) {
	magic := "SML1"
	if layout.streaming {
		magic = "SML2"
	}
	if len(stored) != layout.size || string(stored[:4]) != magic || binary.LittleEndian.Uint32(stored[4:]) != layout.hash {
		return Value{}, false
	}
	value := Value{
		EventTimeMicros: int64(binary.LittleEndian.Uint64(stored[8:])),
		WriteTimeMicros: int64(binary.LittleEndian.Uint64(stored[16:])),
	}
	if layout.streaming {
		value.Writer = binary.LittleEndian.Uint32(stored[24:])
	}
	at := layout.header()
	for _, one := range layout.columns {
		at = roundedUp(at, one.itemSize())
		items := make([]any, one.items)
		for index := range items {
			items[index] = item(one.kind, stored[at:])
			at += one.itemSize()
		}
		value.Columns = append(value.Columns, items)
	}
	return value, true
}

func (layout Layout) header() int {
	if layout.streaming {
		return 32
	}
	return 24
}

func (one column) itemSize() int {
	switch one.kind {
	case "bool":
		return 1
	case "i4", "f4":
		return 4
	}
	return 8
}

func item(kind string, bytes []byte) any {
	switch kind {
	case "bool":
		return bytes[0] != 0
	case "i4":
		return int32(binary.LittleEndian.Uint32(bytes))
	case "f4":
		return math.Float32frombits(binary.LittleEndian.Uint32(bytes))
	case "f8":
		return math.Float64frombits(binary.LittleEndian.Uint64(bytes))
	}
	return int64(binary.LittleEndian.Uint64(bytes))
}

func roundedUp(offset, to int) int { return (offset + to - 1) / to * to }

func main() {
	layout := NewLayout(os.Args[1] == "streaming", os.Args[2:]...)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		stored, err := hex.DecodeString(lines.Text())
		value, present := layout.Decode(stored)
		if err != nil || !present {
			fmt.Println("none")
			continue
		}
		told := []any{value.EventTimeMicros, value.WriteTimeMicros, value.Writer}
		for _, items := range value.Columns {
			told = append(told, items...)
		}
		fmt.Println(told...)
	}
}
