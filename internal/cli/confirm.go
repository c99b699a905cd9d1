package cli

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// yesFlag registers --yes.
func yesFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("yes", false, "do not ask for confirmation")
}

// confirmLetters is how much of a name is typed: ids are long.
const confirmLetters = 8

// confirmed wants the beginning of a name typed unless yes is set.
func (c *command) confirmed(cmd *cobra.Command, yes bool, noun, name string) error {
	if yes {
		return nil
	}
	want, prompt := name, "Type the name of the "+noun
	if letters := []rune(name); len(letters) > confirmLetters {
		want, prompt = string(letters[:confirmLetters]), fmt.Sprintf("Type the first %d characters of the %s", confirmLetters, noun)
	}
	return c.typed(cmd, prompt, printable(want))
}

// typed asks for a word, which has to be typed as it is.
func (c *command) typed(cmd *cobra.Command, prompt, want string) error {
	if _, err := fmt.Fprintf(c.Err, "%s, %s, to go on: ", prompt, want); err != nil {
		return fmt.Errorf("ask for confirmation: %w", err)
	}
	// Nothing ends the wait for a line but a line; whoever interrupts it does not
	// want to type one.
	var line string
	var err error
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		line, err = bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	}()
	select {
	case <-answered:
	case <-cmd.Context().Done():
		return errors.New("interrupted, nothing is changed")
	}
	said := strings.TrimSpace(line)
	switch {
	case said == want:
		return nil
	case said == "" && err != nil:
		return errors.New("nobody confirmed, nothing is changed; --yes goes on without asking")
	}
	return fmt.Errorf("%q is not %s, nothing is changed", said, want)
}
