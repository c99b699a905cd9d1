package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// taskEvery is the time between two looks at a registration task.
const taskEvery = 500 * time.Millisecond

// bulk is the family of commands on registration tasks.
func (c *command) bulk() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bulk", Short: "Register many things from a file in a bucket, and watch that",
		Long: `A registration task carries out a template once for each line of a file of JSON
objects, whose members are the template's parameters. The file lies in a bucket: a
folder of the server's objects.dir, or of the store of objects.s3-url. A line that
fails stops no other.`,
	}
	cmd.AddCommand(c.bulkStart(), c.bulkTasks(), c.bulkStatus(), c.bulkWatch(), c.bulkStop(), c.bulkReport())
	return cmd
}

// bulkStart begins a task.
func (c *command) bulkStart() *cobra.Command {
	cmd := &cobra.Command{
		Use: "start BODY-FILE --bucket BUCKET --key KEY", Short: "Register a thing for each line of a file in a bucket", Args: cobra.ExactArgs(1),
		Long: `Begins a registration task. BODY-FILE is on this machine and holds the body of the
template; - is standard input. muster template test BODY-FILE --type BULK tries it
for one device first. The server allows one running task at a time by default.`,
		Example: `  muster bulk start pump.json --bucket lines --key delivery-17.ndjson
  muster bulk start pump.json --bucket lines --key delivery-17.ndjson --watch`,
	}
	var start apiclient.TaskStart
	cmd.Flags().StringVar(&start.Bucket, "bucket", "", "bucket with the file of parameters")
	cmd.Flags().StringVar(&start.Key, "key", "", "key of that file")
	cmd.Flags().StringVar(&start.RoleARN, "role", "", roleHelp)
	watch := cmd.Flags().Bool("watch", false, "wait for the end, as muster bulk watch does")
	format := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		if start.Bucket == "" || start.Key == "" {
			return mistake(cmd, errors.New("--bucket and --key are needed"))
		}
		var err error
		if start.Body, err = c.readBody(cmd, args[0]); err != nil {
			return err
		}
		if start.RoleARN, err = roleOr(cmd.Context(), api, start.RoleARN); err != nil {
			return err
		}
		id, err := api.StartTask(cmd.Context(), start)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		if *watch {
			return c.followTask(cmd.Context(), api, id, *format)
		}
		return c.showTask(cmd.Context(), api, id, *format)
	})
}

// tasksTable shows tasks.
func tasksTable(tasks []apiclient.RegistrationTask, raw any) table {
	t := table{header: []string{"TASK", "STATUS", "PERCENT", "REGISTERED", "FAILED", "FILE", "CREATED", "MESSAGE"}, raw: raw}
	for i := range tasks {
		e := &tasks[i]
		t.add(e.ID, e.Status, strconv.Itoa(e.Progress), strconv.Itoa(e.Succeeded), strconv.Itoa(e.Failed), e.Bucket+"/"+e.Key, seconds(e.Created), e.Message)
	}
	return t
}

// defaultTasks keeps bulk list quick: each task is asked about by itself.
const defaultTasks = 20

// bulkTasks lists tasks.
func (c *command) bulkTasks() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List registration tasks, the newest first", Args: cobra.NoArgs,
		Example: `  muster bulk list
  muster bulk list --status InProgress
  muster bulk list --limit 0 -o csv`,
	}
	status := cmd.Flags().String("status", "", "only those that are InProgress, Completed, Failed, Cancelling or Cancelled")
	limit := cmd.Flags().Int("limit", defaultTasks, "most rows to fetch; 0 for all")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		ids, err := api.ListTasks(cmd.Context(), *status, *limit)
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		tasks := []apiclient.RegistrationTask{}
		for _, id := range ids {
			found, err := api.DescribeTask(cmd.Context(), id)
			if apiclient.Is(err, "ResourceNotFoundException") {
				continue // it is 30 days old since it was listed
			}
			if err != nil {
				return table{}, err //nolint:wrapcheck // the server's own words
			}
			tasks = append(tasks, found)
		}
		return tasksTable(tasks, tasks), nil
	})
}

// showTask shows one task.
func (c *command) showTask(ctx context.Context, api *apiclient.Client, id, format string) error {
	found, err := api.DescribeTask(ctx, id)
	if err != nil {
		return err //nolint:wrapcheck // the server's own words
	}
	return c.print(format, tasksTable([]apiclient.RegistrationTask{found}, found))
}

// bulkStatus shows one task.
func (c *command) bulkStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status TASK", Short: "Show how far a registration task is", Args: cobra.ExactArgs(1),
		Example: `  muster bulk status 7c9e6679-7425-40de-944b-e07fc1f90ae7
  muster bulk status 7c9e6679-7425-40de-944b-e07fc1f90ae7 -o json`,
	}
	format := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		return c.showTask(cmd.Context(), api, args[0], *format)
	})
}

// bulkWatch waits for the end of a task.
func (c *command) bulkWatch() *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch TASK", Short: "Follow a registration task to its end", Args: cobra.ExactArgs(1),
		Long: `Follows a registration task to its end and shows what became of it. The exit code
is 0 when every line was registered. An interrupt ends the watching, not the task.`,
		Example: "  muster bulk watch 7c9e6679-7425-40de-944b-e07fc1f90ae7",
	}
	format := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		return c.followTask(cmd.Context(), api, args[0], *format)
	})
}

// taskCompleted is the status of a task that has tried every line.
const taskCompleted = "Completed"

// taskEnded reports a status after which nothing happens.
func taskEnded(status string) bool {
	return status == taskCompleted || status == "Failed" || status == "Cancelled"
}

// followTask shows a task until it ends, and what became of it.
func (c *command) followTask(ctx context.Context, api *apiclient.Client, id, format string) error {
	const whole = 100
	bars := &progress{out: c.Err, terminal: c.Terminal}
	for {
		task, err := api.DescribeTask(ctx, id)
		if err != nil {
			bars.end()
			return fmt.Errorf("watch task %s: %w", id, err)
		}
		bars.update("percent", task.Progress, whole)
		if taskEnded(task.Status) {
			bars.end()
			if err := c.print(format, tasksTable([]apiclient.RegistrationTask{task}, task)); err != nil {
				return err
			}
			return judgeTask(&task)
		}
		timer := time.NewTimer(taskEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			bars.end()
			_, _ = fmt.Fprintf(c.Err, "The task goes on: muster bulk watch %s\n", id) // the command ends anyway
			return ctx.Err()
		}
	}
}

// judgeTask is an error when not every line is registered.
func judgeTask(task *apiclient.RegistrationTask) error {
	switch {
	case task.Status != taskCompleted:
		return errors.New(strings.TrimSpace("the task is " + task.Status + " " + printable(task.Message)))
	case task.Failed > 0:
		return fmt.Errorf("%s not registered; why: muster bulk report %s --errors", counted(task.Failed, "line was", "lines were"), task.ID)
	}
	return nil
}

// bulkStop ends a task.
func (c *command) bulkStop() *cobra.Command {
	cmd := &cobra.Command{
		Use: "stop TASK", Short: "End a registration task for good; what is registered stays", Args: cobra.ExactArgs(1),
		Example: "  muster bulk stop 7c9e6679-7425-40de-944b-e07fc1f90ae7",
	}
	format := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		if err := api.StopTask(cmd.Context(), args[0]); err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		return c.showTask(cmd.Context(), api, args[0], *format)
	})
}

// bulkReport prints a report.
func (c *command) bulkReport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "report TASK --errors|--results", Short: "Print what became of the lines of a registration task", Args: cobra.ExactArgs(1),
		Long: `Downloads a report and prints it as it is: a JSON object a line, with the number of
the line in the file. --errors has the lines that failed and why, --results the
others with the ARNs of what they made and the certificate. Results are to be
treated as secrets.`,
		Example: `  muster bulk report 7c9e6679-7425-40de-944b-e07fc1f90ae7 --errors
  muster bulk report 7c9e6679-7425-40de-944b-e07fc1f90ae7 --results >results.ndjson`,
	}
	failed := cmd.Flags().Bool("errors", false, "the lines that failed")
	results := cmd.Flags().Bool("results", false, "the lines that were registered")
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		report := "ERRORS"
		switch {
		case *failed == *results:
			return mistake(cmd, errors.New("give either --errors or --results"))
		case *results:
			report = "RESULTS"
		}
		return api.Report(cmd.Context(), c.Out, args[0], report) //nolint:wrapcheck // the server's own words
	})
}
