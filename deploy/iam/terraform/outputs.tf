output "policy_arn" {
  description = "The policy, to attach it to a role of your own."
  value       = aws_iam_policy.agent.arn
}

output "role_arn" {
  description = "The role: aws.roleArn of the Helm chart."
  value       = one(aws_iam_role.agent[*].arn)
}

output "instance_profile" {
  description = "The instance profile of EC2."
  value       = one(aws_iam_instance_profile.agent[*].name)
}
