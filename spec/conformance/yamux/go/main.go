// A yamux peer for yamux_spec.lua, on HashiCorp's implementation. See ../PEER.md.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

var (
	session  *yamux.Session
	resumed  = make(chan struct{})
	resuming sync.Once
	saying   sync.Mutex
)

func say(format string, args ...any) {
	saying.Lock()
	defer saying.Unlock()
	fmt.Printf(format+"\n", args...)
}

func at(key, offset int) byte {
	return byte(31*key + 7*offset + offset>>8)
}

// pattern reads as the first total bytes of a stream with the key.
type pattern struct{ key, offset, total int }

func (p *pattern) Read(b []byte) (int, error) {
	if p.offset == p.total {
		return 0, io.EOF
	}
	n := min(len(b), p.total-p.offset)
	for i := range b[:n] {
		b[i] = at(p.key, p.offset+i)
	}
	p.offset += n
	return n, nil
}

// verify reads to the end and says "ok BYTES" or "bad OFFSET".
func verify(r io.Reader, key int) (string, error) {
	buffer := make([]byte, 32*1024)
	count, bad := 0, -1
	for {
		n, err := r.Read(buffer)
		for i, c := range buffer[:n] {
			if bad < 0 && c != at(key, count+i) {
				bad = count + i
			}
		}
		count += n
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", err
		}
	}
	if bad >= 0 {
		return fmt.Sprintf("bad %d", bad), nil
	}
	return fmt.Sprintf("ok %d", count), nil
}

func send(stream *yamux.Stream, key, total int) error {
	if _, err := io.Copy(stream, &pattern{key: key, total: total}); err != nil {
		return err
	}
	return stream.Close()
}

func roundTrip(key, total int) error {
	stream, err := session.OpenStream()
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- send(stream, key, total) }()
	verdict, err := verify(stream, key)
	if err == nil {
		err = <-sent
	}
	if err == nil && verdict != fmt.Sprintf("ok %d", total) {
		err = fmt.Errorf("stream %d: %s", key, verdict)
	}
	return err
}

func answer(stream *yamux.Stream, text string) error {
	if _, err := io.WriteString(stream, text+"\n"); err != nil {
		return err
	}
	return stream.Close()
}

func openStreams(count, total int) string {
	results := make(chan error, count)
	for key := 1; key <= count; key++ {
		go func(key int) { results <- roundTrip(key, total) }(key)
	}
	text := fmt.Sprintf("ok %d", count)
	for i := 0; i < count; i++ {
		if err := <-results; err != nil {
			text = "bad " + err.Error()
		}
	}
	return text
}

func serve(stream *yamux.Stream) error {
	reader := bufio.NewReaderSize(stream, 64*1024)
	line, err := reader.ReadString('\n')
	if err != nil {
		return err
	}
	words := strings.Fields(line)
	number := func(i int) int {
		n, _ := strconv.Atoi(words[i])
		return n
	}
	verified := func() error {
		verdict, err := verify(reader, number(1))
		if err != nil {
			return err
		}
		return answer(stream, verdict)
	}
	switch words[0] {
	case "echo":
		if _, err := io.Copy(stream, reader); err != nil {
			return err
		}
		return stream.Close()
	case "sink":
		return verified()
	case "hold":
		<-resumed
		return verified()
	case "resume":
		resuming.Do(func() { close(resumed) })
		return answer(stream, "ok")
	case "source":
		if err := send(stream, number(1), number(2)); err != nil {
			return err
		}
		verdict, err := verify(reader, number(1))
		say("%s", strings.Replace(verdict, "ok", "sunk", 1))
		return err
	case "open":
		return answer(stream, openStreams(number(1), number(2)))
	case "reset":
		// There is no call for it: the library resets what the other side does not close in time.
		return stream.Close()
	case "await-reset":
		say("reading")
		if _, err := io.Copy(io.Discard, reader); errors.Is(err, yamux.ErrConnectionReset) {
			say("was reset")
		}
		return nil
	case "ping":
		if _, err := session.Ping(); err != nil {
			return err
		}
		return answer(stream, "ok")
	case "go-away":
		return session.GoAway()
	case "expect-go-away":
		if _, err := reader.ReadString('\n'); err != nil {
			return err
		}
		if _, err := session.Open(); errors.Is(err, yamux.ErrRemoteGoAway) {
			say("go-away")
		}
		return stream.Close()
	}
	return fmt.Errorf("unknown command %q", words[0])
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	say("port %d", listener.Addr().(*net.TCPAddr).Port)
	conn, err := listener.Accept()
	if err != nil {
		panic(err)
	}
	listener.Close()
	config := yamux.DefaultConfig()
	config.EnableKeepAlive = false
	if len(os.Args) > 2 {
		ms, _ := strconv.Atoi(os.Args[2])
		config.StreamCloseTimeout = time.Duration(ms) * time.Millisecond
	}
	config.LogOutput = io.Discard
	if len(os.Args) > 1 && os.Args[1] == "client" {
		session, err = yamux.Client(conn, config)
	} else {
		session, err = yamux.Server(conn, config)
	}
	if err != nil {
		panic(err)
	}
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			break
		}
		go func() {
			if err := serve(stream); err != nil && !errors.Is(err, yamux.ErrConnectionReset) {
				say("error %v", err)
			}
		}()
	}
	say("closed")
}
