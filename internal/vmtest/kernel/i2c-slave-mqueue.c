// SPDX-License-Identifier: GPL-2.0
/*
 * An I2C slave that hands what is written to it to user space, with the interface
 * of the slave-mqueue backend that BMC kernels have. Written for tests, from the
 * description of that interface:
 *
 *   echo slave-mqueue 0x1020 > /sys/bus/i2c/devices/i2c-N/new_device
 *
 * makes a file slave-mqueue in the new device's directory. A read at offset 0 takes
 * one message: the address byte (address << 1), then the bytes that were written.
 * No message is an empty read; a buffer that is too small is -EOVERFLOW, and the
 * message stays. poll() has POLLPRI when there is something new. The oldest message
 * goes when there is no room for another one; one that is too long is dropped.
 */
#include <linux/i2c.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/sysfs.h>

#define MESSAGE_SIZE 120
#define QUEUE_SIZE 32

struct message {
	size_t len;
	u8 data[MESSAGE_SIZE];
};

struct mqueue {
	struct i2c_client *client;
	struct bin_attribute file;

	/* What the master is writing; slave events come one at a time. */
	struct message incoming;
	bool too_long;

	spinlock_t lock;
	unsigned int first, count;
	struct message queue[QUEUE_SIZE];
};

static void mqueue_push(struct mqueue *mq)
{
	unsigned long flags;

	spin_lock_irqsave(&mq->lock, flags);
	if (mq->count == QUEUE_SIZE) {
		mq->first = (mq->first + 1) % QUEUE_SIZE;
		mq->count--;
	}
	mq->queue[(mq->first + mq->count) % QUEUE_SIZE] = mq->incoming;
	mq->count++;
	spin_unlock_irqrestore(&mq->lock, flags);
	sysfs_notify(&mq->client->dev.kobj, NULL, "slave-mqueue");
}

static int mqueue_event(struct i2c_client *client, enum i2c_slave_event event, u8 *value)
{
	struct mqueue *mq = i2c_get_clientdata(client);

	switch (event) {
	case I2C_SLAVE_WRITE_REQUESTED:
		mq->incoming.data[0] = client->addr << 1;
		mq->incoming.len = 1;
		mq->too_long = false;
		break;
	case I2C_SLAVE_WRITE_RECEIVED:
		if (mq->incoming.len == MESSAGE_SIZE) {
			mq->too_long = true;
			return -EINVAL;
		}
		mq->incoming.data[mq->incoming.len++] = *value;
		break;
	case I2C_SLAVE_STOP:
		if (!mq->too_long && mq->incoming.len > 1)
			mqueue_push(mq);
		mq->incoming.len = 0;
		break;
	default:
		*value = 0xff;
		break;
	}
	return 0;
}

static ssize_t mqueue_read(struct file *filp, struct kobject *kobj, struct bin_attribute *attr,
			   char *buf, loff_t pos, size_t count)
{
	struct mqueue *mq = container_of(attr, struct mqueue, file);
	unsigned long flags;
	ssize_t ret = 0;

	spin_lock_irqsave(&mq->lock, flags);
	if (mq->count) {
		struct message *m = &mq->queue[mq->first];

		if (m->len > count) {
			ret = -EOVERFLOW;
		} else {
			memcpy(buf, m->data, m->len);
			ret = m->len;
			mq->first = (mq->first + 1) % QUEUE_SIZE;
			mq->count--;
		}
	}
	spin_unlock_irqrestore(&mq->lock, flags);
	return ret;
}

static int mqueue_probe(struct i2c_client *client, const struct i2c_device_id *id)
{
	struct mqueue *mq = devm_kzalloc(&client->dev, sizeof(*mq), GFP_KERNEL);
	int ret;

	if (!mq)
		return -ENOMEM;
	mq->client = client;
	spin_lock_init(&mq->lock);
	i2c_set_clientdata(client, mq);

	sysfs_bin_attr_init(&mq->file);
	mq->file.attr.name = "slave-mqueue";
	mq->file.attr.mode = 0400;
	mq->file.read = mqueue_read;
	mq->file.size = MESSAGE_SIZE;
	ret = sysfs_create_bin_file(&client->dev.kobj, &mq->file);
	if (ret)
		return ret;
	ret = i2c_slave_register(client, mqueue_event);
	if (ret)
		sysfs_remove_bin_file(&client->dev.kobj, &mq->file);
	return ret;
}

static void mqueue_remove(struct i2c_client *client)
{
	struct mqueue *mq = i2c_get_clientdata(client);

	i2c_slave_unregister(client);
	sysfs_remove_bin_file(&client->dev.kobj, &mq->file);
}

static const struct i2c_device_id mqueue_ids[] = {
	{ "slave-mqueue", 0 },
	{ }
};

static struct i2c_driver mqueue_driver = {
	.driver = { .name = "i2c-slave-mqueue" },
	.probe = mqueue_probe,
	.remove = mqueue_remove,
	.id_table = mqueue_ids,
};
builtin_i2c_driver(mqueue_driver);
