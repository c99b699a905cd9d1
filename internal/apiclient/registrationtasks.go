package apiclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// RegistrationTask registers many things from one file. Times are seconds since
// 1970.
type RegistrationTask struct {
	ID      string `json:"taskId"`
	Status  string `json:"status"`
	Message string `json:"message,omitempty"`
	Bucket  string `json:"inputFileBucket"`
	Key     string `json:"inputFileKey"`
	RoleARN string `json:"roleArn"`
	Body    string `json:"templateBody,omitempty"`
	// Progress is in percent.
	Progress  int     `json:"percentageProgress"`
	Succeeded int     `json:"successCount"`
	Failed    int     `json:"failureCount"`
	Created   float64 `json:"creationDate"`
	Modified  float64 `json:"lastModifiedDate"`
}

// TaskStart asks for a task.
type TaskStart struct {
	Body    string `json:"templateBody"`
	Bucket  string `json:"inputFileBucket"`
	Key     string `json:"inputFileKey"`
	RoleARN string `json:"roleArn"`
}

// taskPath is where registration tasks are.
func taskPath(more ...string) string {
	return Path(append([]string{"thing-registration-tasks"}, more...)...)
}

// StartTask begins a task and returns its id.
func (c *Client) StartTask(ctx context.Context, t TaskStart) (string, error) {
	var out RegistrationTask
	err := c.JSON(ctx, change(http.MethodPost, taskPath(), nil), t, &out)
	return out.ID, err
}

// DescribeTask returns one task.
func (c *Client) DescribeTask(ctx context.Context, id string) (RegistrationTask, error) {
	var out RegistrationTask
	err := c.JSON(ctx, get(taskPath(id), nil), nil, &out)
	return out, err
}

// ListTasks returns the ids of up to limit tasks, the newest first; all for limit
// 0, those of any status for an empty one.
func (c *Client) ListTasks(ctx context.Context, status string, limit int) ([]string, error) {
	query := url.Values{}
	if status != "" {
		query.Set("status", status)
	}
	all := []string{}
	err := pages(query, limit, func(query url.Values) (int, string, error) {
		var page struct {
			IDs       []string `json:"taskIds"`
			NextToken string   `json:"nextToken"`
		}
		err := c.JSON(ctx, get(taskPath(), query), nil, &page)
		all = append(all, page.IDs...)
		return len(page.IDs), page.NextToken, err
	})
	return all, err
}

// StopTask ends a task; what is registered stays.
func (c *Client) StopTask(ctx context.Context, id string) error {
	return c.JSON(ctx, change(http.MethodPut, taskPath(id, "cancel"), nil), nil, nil)
}

// Report writes the lines of a report, ERRORS or RESULTS, to w in the order of
// the file. The links to its parts are asked for page by page, so that they are
// fresh when they are read.
func (c *Client) Report(ctx context.Context, w io.Writer, id, report string) error {
	return pages(url.Values{"reportType": {report}}, 0, func(query url.Values) (int, string, error) {
		var page struct {
			Links     []string `json:"resourceLinks"`
			NextToken string   `json:"nextToken"`
		}
		if err := c.JSON(ctx, get(taskPath(id, "reports"), query), nil, &page); err != nil {
			return 0, "", err
		}
		for i, link := range page.Links {
			if err := c.download(ctx, w, link); err != nil {
				return 0, "", fmt.Errorf("read part %d of %d of the report: %w", i+1, len(page.Links), err)
			}
		}
		return len(page.Links), page.NextToken, nil
	})
}

// download writes what is behind a link, which needs no signature, to w.
func (c *Client) download(ctx context.Context, w io.Writer, link string) error {
	u, err := url.Parse(link)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("the server's link is none")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, link, nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	response, err := c.do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	if _, err := io.Copy(w, response.Body); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	return nil
}
