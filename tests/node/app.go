// The application of the cases on a node: `app serve`, `app get URL...`, `app load URL SECONDS [CALLERS]`.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func main() {
	arguments := append(os.Args[1:], "", "", "", "")
	switch arguments[0] {
	case "serve":
		serve()
	case "get":
		os.Exit(get(os.Args[2:]))
	case "load":
		seconds, _ := strconv.Atoi(arguments[2])
		callers, _ := strconv.Atoi(arguments[3])
		load(arguments[1], time.Duration(seconds)*time.Second, max(callers, 1))
	default:
		fmt.Fprintln(os.Stderr, "usage: app serve | get URL... | load URL SECONDS [CALLERS]")
		os.Exit(2)
	}
}

// serve answers with who it is. It ends GRACE after it was told to; requests that run are answered.
func serve() {
	name, version := os.Getenv("HOSTNAME"), os.Getenv("VERSION")
	http.HandleFunc("/", func(writer http.ResponseWriter, request *http.Request) {
		if wait, err := time.ParseDuration(request.URL.Query().Get("wait")); err == nil {
			time.Sleep(wait)
		}
		fmt.Fprintf(writer, "%s %s %s %s\n", version, name, request.URL.Path, request.Header.Get("l5d-client-id"))
	})
	server := &http.Server{Addr: ":8080"}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	go func() {
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}()
	<-told
	grace, _ := time.ParseDuration(os.Getenv("GRACE"))
	time.Sleep(grace)
	server.Shutdown(context.Background())
}

func get(urls []string) int {
	code := 0
	for _, url := range urls {
		answer, err := http.Get(url)
		if err != nil {
			fmt.Println("error", err)
			code = 1
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		fmt.Printf("%d %s %s", answer.StatusCode, answer.Header.Get("weft-error"), body)
		if len(body) == 0 || body[len(body)-1] != '\n' {
			fmt.Println()
		}
	}
	return code
}

// load asks until the time is over or it is told to end, and says how often there was which answer.
func load(url string, length time.Duration, callers int) {
	ending, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	ending, cancel = context.WithTimeout(ending, length)
	defer cancel()
	var lock sync.Mutex
	counts, examples := map[string]int{}, map[string]string{}
	var group sync.WaitGroup
	transport := &http.Transport{MaxIdleConnsPerHost: callers}
	for range callers {
		group.Go(func() {
			client := http.Client{Transport: transport, Timeout: 20 * time.Second}
			for ending.Err() == nil {
				answer, err := client.Get(url)
				key, example := "error", fmt.Sprint(err)
				if err == nil {
					body, err := io.ReadAll(answer.Body)
					answer.Body.Close()
					key, example = strconv.Itoa(answer.StatusCode), answer.Header.Get("weft-error")+" "+string(body)
					if err != nil {
						key, example = "error", err.Error()
					} else if answer.StatusCode == 200 {
						var version string
						fmt.Sscan(string(body), &version)
						key += " " + version
					}
				}
				lock.Lock()
				counts[key]++
				if _, known := examples[key]; !known {
					examples[key] = time.Now().Format("15:04:05.000 ") + example
				}
				lock.Unlock()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	group.Wait()
	result, _ := json.Marshal(map[string]any{"counts": counts, "examples": examples})
	fmt.Println(string(result))
}
