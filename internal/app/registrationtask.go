package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	awsiot "github.com/muster-iot/muster/internal/awsapi/iot"
	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/objectstore"
	"github.com/muster-iot/muster/internal/registrationtask"
)

// joinRegistrationTasks registers devices from files in buckets.
func (a *App) joinRegistrationTasks(context.Context) error {
	objects, err := a.objectStore()
	if err != nil {
		return err
	}
	a.tasks = registrationtask.New(registrationtask.Options{
		Store: a.store, Registrar: a.provisioning, Objects: inputFiles{objects},
		Workers: a.settings.Provisioning.TaskWorkers, Tasks: a.settings.Provisioning.TasksPerAccount,
		Now: now, NewID: uuid.NewString, Logger: a.component("registrationtask"), Registerer: a.metrics,
	})
	return nil
}

// objectStore is where the buckets are.
func (a *App) objectStore() (objectstore.Store, error) {
	o := a.settings.Objects
	if o.S3URL == "" {
		dir := o.Dir
		if dir == "" {
			dir = filepath.Join(a.dir.Root(), datadir.BucketsDir)
		}
		return &objectstore.Local{Dir: dir, Default: a.settings.AccountID}, nil
	}
	secret, err := os.ReadFile(o.S3SecretFile)
	if err != nil {
		return nil, fmt.Errorf("read objects.s3-secret-file: %w", err)
	}
	return objectstore.NewS3(objectstore.S3Options{
		URL: o.S3URL, Region: o.S3Region, AccessKeyID: o.S3AccessKeyID, Secret: strings.TrimSpace(string(secret)), CAFile: o.S3CAFile,
		Default: a.settings.AccountID,
	})
}

// inputFiles are the files of registration tasks.
type inputFiles struct{ objects objectstore.Store }

// Open implements registrationtask.Objects.
func (f inputFiles) Open(ctx context.Context, account fleet.Account, bucket, key string) (registrationtask.Object, error) {
	found, err := f.objects.Open(ctx, account, bucket, key)
	if errors.Is(err, objectstore.ErrNotFound) {
		return registrationtask.Object{}, fmt.Errorf("%w: %w", registrationtask.ErrNoObject, err)
	}
	return registrationtask.Object(found), err
}

// reportLinks are the addresses of the reports of registration tasks.
func (a *App) reportLinks() *awsiot.ReportLinks {
	return &awsiot.ReportLinks{Tasks: a.tasks, Tokens: a.tokens, Now: now, Read: func(r *http.Request, of fleet.Account, task, report string, part int) {
		a.recorder.Service(r.Context(), of, "RegistrationTaskReportRead", map[string]any{
			"taskId": task, "reportType": report, "part": part, "sourceAddress": r.RemoteAddr,
		})
	}}
}
