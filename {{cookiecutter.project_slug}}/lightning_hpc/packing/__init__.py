"""Several small runs in one job: which runs an element of an array has, what each gets, who looks after them."""
