package sdk

// groupAnswers are the cases of groups, billing groups, tags and event configurations.
func groupAnswers() []answerCase { return nil }
