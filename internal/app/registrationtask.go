package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/muster-iot/muster/internal/audit"
	awsiot "github.com/muster-iot/muster/internal/awsapi/iot"
	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/objectstore"
	"github.com/muster-iot/muster/internal/registrationtask"
	"github.com/muster-iot/muster/internal/s3api"
)

// uploadSweepEvery is how often unfinished uploads are looked at.
const uploadSweepEvery = time.Hour

// joinRegistrationTasks registers devices from files in buckets.
func (a *App) joinRegistrationTasks(context.Context) error {
	var err error
	if a.objects, err = a.objectStore(); err != nil {
		return err
	}
	a.tasks = registrationtask.New(registrationtask.Options{
		Store: a.store, Registrar: a.provisioning, Objects: inputFiles{a.objects},
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
		return &objectstore.Local{Dir: dir, Default: a.settings.AccountID, MaxBytes: o.MaxBytes}, nil
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

// bucketHandler serves the buckets of the folder to clients of S3.
func (a *App) bucketHandler() http.Handler {
	o := s3api.Options{
		Region: a.settings.Region, Prove: a.proveS3, Permit: a.permit, Recorder: a.recorder, Now: now, Logger: a.component("s3api"),
	}
	if local, ok := a.objects.(*objectstore.Local); ok {
		o.Store = local
	}
	return s3api.New(o)
}

// proveS3 finds who sent a request that is signed for s3.
func (a *App) proveS3(r *http.Request) (*http.Request, accountID, error) {
	caller, err := a.api.AuthenticateS3(r)
	if err != nil {
		return nil, "", err
	}
	call := audit.From(r.Context())
	actor := fleet.Actor{Principal: caller.Principal, SourceAddress: caller.SourceAddress, AccessKeyID: caller.AccessKeyID, RequestID: call.RequestID()}
	call.Caller(caller.Account, actor)
	call.Session(caller.SessionBegan)
	ctx := proven(context.WithValue(fleet.WithActor(r.Context(), actor), callerKey{}, caller.Account), caller)
	a.accounts.Used(ctx, caller.AccessKeyID)
	return r.WithContext(ctx), caller.Account, nil
}

// sweepUploads removes what clients began to upload and never completed.
func (a *App) sweepUploads(ctx context.Context) error {
	local, ok := a.objects.(*objectstore.Local)
	if !ok {
		return nil
	}
	tick := time.NewTicker(uploadSweepEvery)
	defer tick.Stop()
	for {
		if err := local.Sweep(now()); err != nil {
			a.component("s3api").ErrorContext(ctx, "uploads that nobody completed are not removed", slog.Any("err", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
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
