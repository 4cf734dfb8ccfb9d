variable "name" {
  description = "Name of the role and its policy."
  type        = string
  default     = "rds-lb-agent"
}

variable "resource_ids" {
  description = "Resource IDs of the databases: db-... of each instance, or cluster-... of each Aurora or Multi-AZ cluster. Not their names."
  type        = list(string)

  validation {
    condition     = length(var.resource_ids) > 0 && alltrue([for id in var.resource_ids : can(regex("^(db|cluster|prx)-[A-Z0-9]+$", id))])
    error_message = "Each is a resource ID such as db-ABCDEFGHIJKL01234 or cluster-ABCDEFGHIJKL01234."
  }
}

variable "user" {
  description = "The database user of the agent."
  type        = string
  default     = "lb_agent"
}

variable "features" {
  description = "What the agent may do beside its logins: topology, doctor, failure-log (README.md)."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setsubtract(var.features, ["topology", "doctor", "failure-log"])) == 0
    error_message = "The features are topology, doctor and failure-log."
  }
}

variable "runs_on" {
  description = "Where the agent runs: ec2 (an instance profile is created), pod-identity (EKS), irsa (EKS), or policy (only the policy is created)."
  type        = string
  default     = "ec2"

  validation {
    condition     = contains(["ec2", "pod-identity", "irsa", "policy"], var.runs_on)
    error_message = "One of ec2, pod-identity, irsa, policy."
  }
}

variable "oidc_provider_arn" {
  description = "With irsa: the ARN of the cluster's OIDC provider."
  type        = string
  default     = ""
}

variable "service_account" {
  description = "With irsa: NAMESPACE:NAME of the service account."
  type        = string
  default     = ""
}

variable "tags" {
  description = "Tags of the role and the policy."
  type        = map(string)
  default     = {}
}
