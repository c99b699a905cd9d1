package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/tag"
)

// registerTags offers the operations on the tags of resources that there are.
func (a *api) registerTags(s *awsapi.Server) {
	offer(s, "TagResource", func(_ *awsapi.Call, in *iotwire.TagResourceInput) []string { return []string{in.ResourceARN} }, a.tagResource)
	offer(s, "UntagResource", func(_ *awsapi.Call, in *iotwire.UntagResourceInput) []string { return []string{in.ResourceARN} }, a.untagResource)
	offer(s, "ListTagsForResource", func(_ *awsapi.Call, in *iotwire.ListTagsForResourceInput) []string { return []string{in.ResourceARN} },
		a.listTagsForResource)
}

// tagsOf is a request's list of tags. A tag without a value has an empty one.
func tagsOf(list []iotwire.Tag) []tag.Tag {
	return each(list, func(t iotwire.Tag) tag.Tag { return tag.Tag{Key: t.Key, Value: value(t.Value)} })
}

func (a *api) tagResource(ctx context.Context, c *awsapi.Call, in *iotwire.TagResourceInput) (*iotwire.TagResourceOutput, error) {
	return &iotwire.TagResourceOutput{}, a.Tags.Put(ctx, c.Account, in.ResourceARN, tagsOf(in.Tags))
}

func (a *api) untagResource(ctx context.Context, c *awsapi.Call, in *iotwire.UntagResourceInput) (*iotwire.UntagResourceOutput, error) {
	return &iotwire.UntagResourceOutput{}, a.Tags.Remove(ctx, c.Account, in.ResourceARN, in.TagKeys)
}

func (a *api) listTagsForResource(ctx context.Context, c *awsapi.Call, in *iotwire.ListTagsForResourceInput) (*iotwire.ListTagsForResourceOutput, error) {
	after, err := c.PageKey(in.NextToken, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	listed, next, err := a.Tags.List(ctx, c.Account, in.ResourceARN, after)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListTagsForResourceOutput{
		NextToken: c.NextToken(next, in.ResourceARN),
		Tags:      each(listed, func(t tag.Tag) iotwire.Tag { return iotwire.Tag{Key: t.Key, Value: &t.Value} }),
	}, nil
}
