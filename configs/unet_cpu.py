from configs import default


def get_config():
    config = default.get_config()
    config.data.size = 128
    config.model.features = 16
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 1e-2
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 1.0
    config.optimizer.ema_decay = 0.99
    config.train.minutes = 30.0
    config.train.eval_every = 250
    return config
