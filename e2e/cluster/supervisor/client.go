package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/outrider-agent/outrider/e2e/cluster/settings"
)

// A Client asks the running supervisor of one cluster.
type Client struct {
	dir  settings.Dir
	http *http.Client
}

// NewClient makes a client for the cluster in dir, whether it runs or not.
func NewClient(dir settings.Dir) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		path, done, err := socketPath(dir)
		if err != nil {
			return nil, err
		}
		defer done()
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", path)
	}
	return &Client{dir: dir, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Status tells of every component.
func (c *Client) Status(ctx context.Context) ([]Status, error) {
	var statuses []Status
	return statuses, c.call(ctx, http.MethodGet, "/status", &statuses)
}

// Act does a verb (stop, kill, start or restart) to a component and returns when it is done.
func (c *Client) Act(ctx context.Context, name, verb string, graceful bool) error {
	path := "/components/" + url.PathEscape(name) + "/" + url.PathEscape(verb)
	if graceful {
		path += "?graceful=true"
	}
	return c.call(ctx, http.MethodPost, path, &answer{})
}

// Compact compacts etcd to its present revision and tells what it did.
func (c *Client) Compact(ctx context.Context) (string, error) { return c.tell(ctx, "/compact") }

// Snapshot saves etcd's data to file, an absolute path.
func (c *Client) Snapshot(ctx context.Context, file string) (string, error) {
	return c.tell(ctx, "/snapshot?file="+url.QueryEscape(file))
}

// Restore puts the cluster back to the snapshot in file, an absolute path.
func (c *Client) Restore(ctx context.Context, file string) (string, error) {
	return c.tell(ctx, "/restore?file="+url.QueryEscape(file))
}

func (c *Client) tell(ctx context.Context, path string) (string, error) {
	var got answer
	err := c.call(ctx, http.MethodPost, path, &got)
	return got.Message, err
}

func (c *Client) call(ctx context.Context, method, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://devcluster"+path, nil)
	if err != nil {
		return fmt.Errorf("ask devcluster: %w", err)
	}
	response, err := c.http.Do(request)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("no cluster is running in %s; start one with: devcluster up --dir %s", c.dir, c.dir)
	}
	if err != nil {
		return fmt.Errorf("ask devcluster: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		var got answer
		if err := json.NewDecoder(response.Body).Decode(&got); err != nil || got.Message == "" {
			return fmt.Errorf("ask devcluster: status %d, want 200", response.StatusCode)
		}
		return errors.New(got.Message)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("ask devcluster: %w", err)
	}
	return nil
}
