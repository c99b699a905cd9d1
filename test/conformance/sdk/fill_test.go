package sdk

import (
	"reflect"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// deepest bounds fill and holes in types that contain themselves.
const deepest = 16

// fill puts something into every member of a struct, such that the clients'
// own checks pass.
func fill(v reflect.Value, depth int) {
	if !v.CanSet() || depth > deepest {
		return
	}
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)))
		return
	case v.Type() == reflect.TypeFor[types.AssetPropertyVariant]():
		v.Set(reflect.ValueOf(&types.AssetPropertyVariantMemberStringValue{Value: "x"}))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth)
	case reflect.String:
		v.SetString(strings.Repeat("x", 64))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8:
		v.SetUint('x')
	case reflect.Float32, reflect.Float64:
		v.SetFloat(1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth+1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		element := reflect.New(v.Type().Elem()).Elem()
		fill(element, depth+1)
		v.SetMapIndex(reflect.ValueOf("x").Convert(v.Type().Key()), element)
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field, depth+1)
		}
	default:
	}
}

// holes lists the members of a filled struct that are still empty.
func holes(v reflect.Value, path string, depth int) []string {
	if depth > deepest || v.Type() == reflect.TypeFor[time.Time]() {
		return nil
	}
	var found []string
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return []string{path}
		}
		return holes(v.Elem(), path, depth)
	case reflect.Slice:
		if v.Len() == 0 {
			return []string{path}
		}
		return holes(v.Index(0), path+"[]", depth+1)
	case reflect.Map:
		if v.Len() == 0 {
			return []string{path}
		}
		for _, key := range v.MapKeys() {
			found = append(found, holes(v.MapIndex(key), path+"{}", depth+1)...)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if field.IsExported() && field.Name != "ResultMetadata" {
				found = append(found, holes(v.Field(i), path+"."+field.Name, depth+1)...)
			}
		}
	default:
		if v.IsZero() {
			return []string{path}
		}
	}
	return found
}
