package sdk

// certificateAnswers are the cases of certificates and authorities.
func certificateAnswers() []answerCase { return nil }
