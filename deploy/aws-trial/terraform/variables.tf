variable "name" {
  description = "Prefix of the names of all resources."
  type        = string
  default     = "rds-lb-agent-trial"
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "database_subnet_ids" {
  description = "Private subnets in at least two availability zones."
  type        = list(string)
}

variable "balancer_subnet_id" {
  description = "A subnet from which the balancer reaches package repositories, AWS STS, SSM and the database."
  type        = string
}

variable "ami_id" {
  description = "An AMI with the SSM agent: Amazon Linux 2023, or Debian 12 with amazon-ssm-agent."
  type        = string
}

variable "instance_class" {
  description = "Class of the two Aurora instances."
  type        = string
  default     = "db.t4g.medium"
}

variable "engine_version" {
  description = "Version of Aurora PostgreSQL."
  type        = string
  default     = "16.6"
}
