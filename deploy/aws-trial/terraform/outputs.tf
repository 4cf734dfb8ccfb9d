output "balancer" {
  description = "The host: aws ssm start-session --target ID"
  value       = aws_instance.balancer.id
}

output "trial_environment" {
  description = "What trial.sh needs, as lines for its environment file."
  value       = <<-LINES
    CLUSTER=${aws_rds_cluster.trial.cluster_identifier}
    WRITE_ENDPOINT=${aws_rds_cluster.trial.endpoint}
    READ_ENDPOINT=${aws_rds_cluster.trial.reader_endpoint}
    ENDPOINT_A=${aws_rds_cluster_instance.trial["a"].endpoint}
    ENDPOINT_B=${aws_rds_cluster_instance.trial["b"].endpoint}
    PORT=5432
    DATABASE=orders
  LINES
}

output "master" {
  description = "User and password of the master user, for the SQL files of deploy/postgresql."
  value       = "trial_admin ${random_password.master.result}"
  sensitive   = true
}
