package account

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"filippo.io/age"

	"github.com/muster-iot/muster/internal/datadir"
)

// maxSealed bounds what Open decrypts; a secret key has 40 bytes.
const maxSealed = 1 << 16

// FileSealer seals with an age key that lies in a private file of the data
// folder. A copy of the store without that file holds no usable secret. Nodes
// that share a database must share the file.
type FileSealer struct{ identity *age.X25519Identity }

// OpenSealer loads the key file, and makes it on the first start.
func OpenSealer(path string) (*FileSealer, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createSealer(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read sealing key: %w", err)
	}
	identity, err := age.ParseX25519Identity(strings.TrimSpace(string(data)))
	if err != nil {
		// The parser's error is dropped: it may repeat the key.
		return nil, fmt.Errorf("%s does not hold an age key", path)
	}
	return &FileSealer{identity: identity}, nil
}

// createSealer makes a key and its file.
func createSealer(path string) (*FileSealer, error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make sealing key: %w", err)
	}
	if err := datadir.WriteFile(path, []byte(identity.String()+"\n"), datadir.PrivateMode); err != nil {
		return nil, fmt.Errorf("save sealing key: %w", err)
	}
	return &FileSealer{identity: identity}, nil
}

// Seal encrypts to the key.
func (f *FileSealer) Seal(plain []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, f.identity.Recipient())
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out.Bytes(), nil
}

// Open decrypts what Seal made with the same key.
func (f *FileSealer) Open(sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), f.identity)
	if err != nil {
		return nil, fmt.Errorf("decrypt with the key file of this data folder: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxSealed))
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return plain, nil
}
