// Package registrationtask registers many devices from one file: a task reads the
// file line by line and carries out a template's body for each.
//
// It owns the tasks and a receipt for each line, which the commit of the line's
// registration takes along: a line with a receipt is done, so that none is done
// twice, whatever dies when. Reports are made of the receipts when somebody asks.
// It must not know where files come from, nor how a body is carried out, and it
// knows no wire.
//
// Run has one goroutine for each task under way, which has a bounded number of
// workers; no more than one chunk of the file is in memory. It emits
// event.RegistrationTaskChanged; what happens to devices has events of its own.
package registrationtask
